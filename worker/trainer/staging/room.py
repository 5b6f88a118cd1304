"""How much memory the machine, or the group of processes that the run is confined to, has left."""

from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def room(meminfo: Path = Path("/proc/meminfo"), own: Path = Path("/proc/self/cgroup"), cgroup: Path = CGROUP) -> int:
    """Bytes; those of reclaimable file pages count as free."""
    lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
    left = int(lines["MemAvailable"].split()[0]) * 1024
    try:
        path = next(line[3:].strip() for line in own.read_text().splitlines() if line.startswith("0::"))
        group = cgroup / path.lstrip("/")
        for folder in (group, *group.parents):
            if (limit := folder / "memory.max").exists() and (most := limit.read_text().strip()) != "max":
                files = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
                left = min(left, int(most) - int((folder / "memory.current").read_text()) + int(files.get("inactive_file", 0)))
    except (OSError, StopIteration, ValueError):
        return left
    return left
