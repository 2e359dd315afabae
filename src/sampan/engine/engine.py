"""The Engine of the textbook: every request is a job handed out here."""

from __future__ import annotations

from collections.abc import Mapping

from sampan.engine.containers.containers import Containers
from sampan.engine.context import Rooms
from sampan.engine.execs.execs import Execs
from sampan.engine.health import HealthWatch
from sampan.engine.jobs import Job
from sampan.engine.networks.networks import Networks
from sampan.engine.oom import OomWatch
from sampan.engine.system import System
from sampan.engine.volumes.volumes import Volumes


class Engine:
    """api/backend.py Engine, over the rooms that the daemon put together."""

    def __init__(self, rooms: Rooms, *, labels: list[str], debug: bool) -> None:
        self.rooms = rooms
        self.containers = Containers(rooms)
        self.execs = rooms.execs = Execs(self.containers)
        self.health = rooms.health = HealthWatch(self.execs)
        self.oom = rooms.oom = OomWatch()
        self.images = rooms.images
        self.networks = Networks(self.containers)
        self.volumes = Volumes(rooms)
        self.builder: object = None  # of the room above; the daemon puts it in
        self.system = System(rooms, self.containers, labels, debug=debug)

    def job(self, name: str, arguments: Mapping[str, str]) -> Job:
        return self.rooms.jobs.open(name, arguments)

    def in_use(self, image: str) -> list[tuple[str, bool]]:
        """Return the containers made from an image, as (id, running)."""
        users = [one for one in list(self.containers.all.values()) if image in one.record.images]
        return [(one.id, one.record.running) for one in users]

    def close(self) -> None:
        """Let every keeper's connection go; the containers go on."""
        self.health.close()
        self.oom.close()
        self.containers.statistics.close()
        for container in self.containers.all.values():
            container.drop_keeper()
            if container.restart_task is not None:
                container.restart_task.cancel()
        self.rooms.trash.close()
