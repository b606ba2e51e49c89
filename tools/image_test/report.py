"""The results of the checks, and what ends them."""

from dataclasses import dataclass, field


class MissingToolError(Exception):
    """A program that this test needs is not installed."""


class StepError(Exception):
    """A step failed, so that those after it make no sense."""


@dataclass(frozen=True)
class Finished:
    """A program that ended."""

    status: int
    output: str
    errors: str

    @property
    def text(self) -> str:
        """Everything it wrote, without blank lines at the ends."""
        return (self.output + self.errors).strip()


@dataclass
class Report:
    """Prints what was found, a line each, and remembers whether anything was wrong."""

    failures: list[str] = field(default_factory=list)

    def say(self, name: str, text: object) -> None:
        """Print a fact."""
        lines = str(text).splitlines() or [""]
        print(f"  {name:<23} {lines[0]}", flush=True)
        for line in lines[1:]:
            print(f"  {'':<23} {line}", flush=True)

    def check(self, name: str, text: object, *, good: bool) -> None:
        """Print a fact that may be wrong."""
        self.say(name, text if good else f"WRONG: {text}")
        if not good:
            self.failures.append(name)
