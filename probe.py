import vl_convert, altair as alt, os
chart=alt.Chart(alt.Data(values=[{'a':1}])).mark_point().encode(x='a:Q')
import json
v=".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
s=vl_convert.vegalite_to_svg(json.loads(chart.to_json()), vl_version=v)
print(len(s), [l for l in open('/proc/self/status') if l.startswith(('VmPeak','VmSize'))])
