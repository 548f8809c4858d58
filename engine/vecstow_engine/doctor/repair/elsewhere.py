"""Where what a repair cannot save may still be: the newest sound backup, or a copy of the volume."""

from __future__ import annotations

from dataclasses import dataclass

from vecstow_engine.doctor.check import advice
from vecstow_engine.doctor.check.collection import is_sound
from vecstow_engine.storage.layout import Layout


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Looks when it is asked: a backup is read whole before it is named."""

    layout: Layout
    name: str
    served: bool
    """An engine has the volume."""
    seeks: bool
    """Look for a backup of what a repair loses, too."""

    def restore(self) -> str:
        """What to type instead of a repair."""
        return advice.sentence(advice.restore(self.layout, self.name, is_sound, served=self.served))

    def backup(self) -> str | None:
        """How the newest sound backup is restored; None when there is none, or it is not looked for."""
        if not self.seeks:
            return None
        found = advice.restore_backup(self.layout, self.name, is_sound, served=self.served)
        return None if found is None else str(found)
