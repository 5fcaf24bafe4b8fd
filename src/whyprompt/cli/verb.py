"""What a verb of the command line is: help in groups with examples, and messages in its own words."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand

from whyprompt.cli.flags import said_in_flags


class Verb(TyperCommand):
    """A command whose help lists its options in groups and ends in examples, and whose errors speak flags.

    Options are grouped by their ``rich_help_panel``; those without one come first.
    """

    def format_options(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401 - click's, which typer brings along
        """Write a section for each group of options."""
        groups: dict[str, list[tuple[str, str]]] = {"Options": []}
        for option in self.get_params(ctx):
            record = option.get_help_record(ctx)
            if record is not None:
                argument = option.param_type_name == "argument"
                group = "Arguments" if argument else getattr(option, "rich_help_panel", None) or "Options"
                groups.setdefault(group, []).append(record)
        order = sorted(groups, key=lambda name: (name != "Arguments", name == "Options"))
        for name in order:
            if groups[name]:
                with formatter.section(name):
                    formatter.write_dl(groups[name])

    def format_epilog(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401, ARG002 - click's own
        """Write the examples as they are, a command a line."""
        if self.epilog:
            with formatter.section("Examples"):
                for line in self.epilog.strip().splitlines():
                    formatter.write(f"{'':{formatter.current_indent}}{line}\n")

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401 - click's own
        """Run the verb; what the library refuses is said in its options."""
        with said_in_flags(ctx):
            return super().invoke(ctx)
