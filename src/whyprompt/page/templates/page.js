"use strict";
(function () {
  document.documentElement.classList.add("scripted");
  var read = function (id) { return JSON.parse(document.getElementById(id).textContent); };

  /* Every mark carries its words: show them at the pointer. */
  var tip = document.getElementById("tip");
  var hide = function () { tip.hidden = true; };
  var show = function (event) {
    var mark = event.target.closest(".chart [data-say], .live svg [aria-label], .tokens [data-say]");
    var words = mark && (mark.getAttribute("data-say") || mark.getAttribute("aria-label"));
    if (!words || mark.tagName.toLowerCase() === "svg") { hide(); return; }
    tip.textContent = words;
    tip.hidden = false;
    var box = tip.getBoundingClientRect();
    var left = Math.min(event.clientX + 12, window.innerWidth - box.width - 8);
    var top = event.clientY + 16;
    if (top + box.height > window.innerHeight) { top = event.clientY - box.height - 10; }
    tip.style.left = Math.max(8, left) + "px";
    tip.style.top = Math.max(8, top) + "px";
  };
  document.addEventListener("pointermove", show);
  document.addEventListener("pointerdown", show);
  document.addEventListener("scroll", hide, true);
  document.addEventListener("keydown", function (event) { if (event.key === "Escape") { hide(); } });

  /* Only what scrolls needs to be reached by the keyboard. */
  var reach = function () {
    document.querySelectorAll(".scroll, .tokens, pre").forEach(function (box) {
      var scrolls = box.scrollWidth > box.clientWidth + 1 || box.scrollHeight > box.clientHeight + 1;
      if (scrolls) { box.setAttribute("tabindex", "0"); } else { box.removeAttribute("tabindex"); }
    });
  };
  window.addEventListener("resize", reach);
  document.addEventListener("toggle", reach, true);
  reach();

  /* What a link goes to is opened; what holds it, too. */
  var unfold = function () {
    var target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    var closed = [];
    for (var box = target; box; box = box.parentElement) {
      if (box.tagName === "DETAILS" && !box.open) { box.open = true; closed.push(box); }
    }
    if (closed.length) { target.scrollIntoView({ behavior: "instant" }); }
  };
  window.addEventListener("hashchange", unfold);
  document.querySelectorAll("nav a").forEach(function (link) {
    link.addEventListener("click", function () { if (link.hash === location.hash) { unfold(); } });
  });
  unfold();
  var parts = document.querySelectorAll("details.part"), all = document.getElementById("all");
  all.addEventListener("click", function () {
    var open = Array.prototype.some.call(parts, function (d) { return !d.open; });
    parts.forEach(function (d) { d.open = open; });
  });
  document.addEventListener("toggle", function () {
    var open = Array.prototype.some.call(parts, function (d) { return !d.open; });
    all.textContent = open ? "Open all parts" : "Fold all parts";
  }, true);

  /* Items are searched by all of their text. */
  document.querySelectorAll(".search").forEach(function (list) {
    var box = list.querySelector("input"), told = list.querySelector("output");
    var groups = list.querySelectorAll(":scope > details"), items = list.querySelectorAll(":scope > details > details");
    var texts = null;
    box.addEventListener("input", function () {
      var words = box.value.toLowerCase().split(/\s+/).filter(Boolean), left = 0;
      texts = texts || Array.prototype.map.call(items, function (d) { return d.textContent.toLowerCase(); });
      items.forEach(function (d, i) {
        var found = words.every(function (w) { return texts[i].indexOf(w) >= 0; });
        d.hidden = !found;
        left += found ? 1 : 0;
      });
      if (words.length) { groups.forEach(function (d) { d.open = true; }); }
      told.textContent = words.length ? left + " of " + items.length : "";
    });
  });

  /* What is folded on the screen is open on paper. */
  var folded = [];
  window.addEventListener("beforeprint", function () {
    folded = Array.prototype.filter.call(document.querySelectorAll("details"), function (d) { return !d.open; });
    folded.forEach(function (d) { d.open = true; });
  });
  window.addEventListener("afterprint", function () { folded.forEach(function (d) { d.open = false; }); });

  var data = read("head-data");
  var panel = document.getElementById("head-panel");
  if (!data || !panel) { return; }

  var number = {};
  data.heads.forEach(function (h, i) { number[h[0] + "." + h[1]] = i; });
  var most = 0;
  data.nie.forEach(function (row) { row.forEach(function (v) { most = Math.max(most, Math.abs(v)); }); });
  most = most || 1;
  var weights = data.pictures.map(function (p) {
    var text = atob(p.weights), out = new Uint8Array(text.length);
    for (var i = 0; i < text.length; i += 1) { out[i] = text.charCodeAt(i); }
    return out;
  });

  /* As the page's tables write numbers: three significant digits, no exponent. */
  var write = function (v) {
    if (v === 0) { return "0"; }
    var digits = Math.max(0, 2 - Math.floor(Math.log10(Math.abs(v))));
    return v.toFixed(Math.min(digits, 12)).replace("-", "\u2212");
  };

  var items = function (at) {
    var body = panel.querySelector("#head-items tbody");
    var rows = Array.prototype.slice.call(body.rows);
    rows.forEach(function (row) {
      var v = data.nie[at][Number(row.dataset.item)], share = v / most;
      row.querySelector(".v").textContent = write(v);
      var bar = row.querySelector(".bar span");
      bar.style.left = (share >= 0 ? 50 : 50 + 50 * share) + "%";
      bar.style.width = Math.abs(50 * share) + "%";
      bar.style.background = share < 0 ? "var(--down)" : "var(--up)";
    });
    rows.sort(function (a, b) { return data.nie[at][b.dataset.item] - data.nie[at][a.dataset.item]; });
    rows.forEach(function (row) { body.appendChild(row); });
  };

  var attention = function (at) {
    panel.querySelectorAll(".attention").forEach(function (strip) {
      var k = Number(strip.dataset.picture), p = data.pictures[k], row = p.rows[String(at)];
      var known = row !== undefined;
      strip.classList.toggle("absent", !known);
      strip.querySelectorAll(".tokens, .mass").forEach(function (e) { e.hidden = !known; });
      var gone = strip.querySelector(".gone");
      if (!known && !gone) {
        gone = document.createElement("p");
        gone.className = "gone note";
        gone.textContent = "To keep this page small, only the strongest heads carry their attention; this one does not.";
        strip.appendChild(gone);
      }
      if (gone) { gone.hidden = known; }
      if (!known) { return; }
      var w = weights[k].subarray(row * p.n, (row + 1) * p.n), largest = 1, mass = {};
      w.forEach(function (v) { largest = Math.max(largest, v); });
      strip.querySelectorAll(".t").forEach(function (token, i) {
        token.style.setProperty("--w", Math.sqrt(w[i] / largest).toFixed(3));
        token.dataset.say = JSON.stringify(p.tokens[i]) + ": weight " + (w[i] / 255).toFixed(3);
        mass[p.segments[i]] = (mass[p.segments[i]] || 0) + w[i] / 255;
      });
      strip.querySelectorAll(".mass [data-seg]").forEach(function (r) {
        r.cells[1].textContent = (100 * (mass[r.dataset.seg] || 0)).toFixed(1) + "%";
      });
    });
  };

  var mean = function (at) {
    Array.prototype.forEach.call(panel.querySelector("#head-mass tbody").rows, function (row, k) {
      [0, 1].forEach(function (arm) {
        var v = data.mass[at][arm][k];
        row.cells[arm + 1].textContent = v === null ? "none" : (100 * v).toFixed(1) + "%";
      });
    });
  };

  var select = document.getElementById("head-select");
  var marks = [];
  var choose = function (at, focus) {
    marks.forEach(function (m) {
      var on = m.at === at;
      m.node.setAttribute("aria-pressed", String(on));
      m.node.setAttribute("tabindex", on ? "0" : "-1");
      /* Last in its group, so that its frame is drawn over its neighbours; a moved node loses the focus. */
      if (on) { m.node.parentNode.appendChild(m.node); }
      if (on && focus === m.map) { m.node.focus(); }
    });
    panel.querySelector("#head-title").textContent = data.words[at];
    select.value = String(at);
    panel.dataset.chosen = String(at);
    items(at);
    attention(at);
    mean(at);
  };

  document.querySelectorAll(".live .chart").forEach(function (map) {
    var sideways = map.classList.contains("wide");
    var svg = map.querySelector("svg");
    svg.setAttribute("aria-label", svg.getAttribute("aria-label") + " Arrow keys move between heads, Enter chooses one.");
    map.querySelectorAll("svg [aria-label]").forEach(function (node) {
      var found = /^head (\d+)\.(\d+):/.exec(node.getAttribute("aria-label"));
      if (!found || number[found[1] + "." + found[2]] === undefined) { return; }
      var at = number[found[1] + "." + found[2]];
      node.dataset.head = String(at);
      node.setAttribute("role", "button");
      node.removeAttribute("aria-roledescription");
      marks.push({ node: node, at: at, map: map });
      node.addEventListener("click", function () { choose(at, null); });
      node.addEventListener("keydown", function (event) {
        var step = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] }[event.key];
        if (event.key === "Enter" || event.key === " ") { event.preventDefault(); choose(at, map); return; }
        if (!step) { return; }
        event.preventDefault();
        var layer = data.heads[at][0] + (sideways ? step[0] : step[1]);
        var head = data.heads[at][1] + (sideways ? step[1] : step[0]);
        var next = number[layer + "." + head];
        if (next === undefined) { return; }
        var target = map.querySelector('[data-head="' + next + '"]');
        node.setAttribute("tabindex", "-1");
        target.setAttribute("tabindex", "0");
        target.focus();
      });
    });
  });
  select.addEventListener("change", function () { choose(Number(select.value), null); });
  choose(data.chosen, null);
}());
