"""Control groups: v1, v2 and hybrid behind one face.  The runtime sets limits, the engine reads numbers."""

from sampan.cgroups.group import Doors, Group
from sampan.cgroups.hierarchy import Hierarchy
from sampan.cgroups.numbers import Stats
from sampan.cgroups.place import checked_path

__all__ = ["Doors", "Group", "Hierarchy", "Stats", "checked_path"]
