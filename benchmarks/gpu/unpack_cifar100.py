"""Unpacks one or both archives of CIFAR-100 as sheets into image folders, on all cores: `unpack_cifar100.py DEST ARCHIVE…`."""

from __future__ import annotations

import io
import json
import sys
import zipfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from PIL import Image

SIDE = 32


def unpack(job: tuple[str, str, str]) -> int:
    """Writes the images of one sheet (all of one class in one split); their number."""
    archive, name, folder = job
    with zipfile.ZipFile(archive) as opened:
        sheet = Image.open(io.BytesIO(opened.read(name))).convert("RGB")
    # A sheet is its images' bytes one after the other, whatever its own width.
    pixels = sheet.tobytes()
    size = SIDE * SIDE * 3
    first = int(Path(name).stem.partition("_")[2])
    Path(folder).mkdir(parents=True, exist_ok=True)
    for at in range(0, len(pixels), size):
        image = Image.frombytes("RGB", (SIDE, SIDE), pixels[at : at + size])
        image.save(Path(folder, f"{first + at // size:05d}.png"), compress_level=0)
    return len(pixels) // size


def main() -> None:
    """Unpacks, and says how many images there are."""
    destination, *archives = sys.argv[1:]
    jobs = []
    for archive in archives:
        with zipfile.ZipFile(archive) as opened:
            classes = json.loads(opened.read("classes.json"))
            for name in opened.namelist():
                if name.endswith(".webp"):
                    split, file = name.split("/")
                    jobs.append((archive, name, str(Path(destination, split, classes[int(file[:3])]))))
    with ProcessPoolExecutor() as pool:
        print(sum(pool.map(unpack, jobs, chunksize=2)), "images")


if __name__ == "__main__":
    main()
