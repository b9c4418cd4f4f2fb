"""Small files in the official layout of every data set, with content that tells what it should become.

An image is grey at 10 + 2 * code (the median survives cropping, shrinking and JPEG) with a random patch in the
middle that makes it unique. So a test can see that pixels and labels still belong together.
"""

import gzip
import hashlib
import io
import json
import pickle
import tarfile
import zipfile
from dataclasses import replace

import numpy as np
from PIL import Image
from scipy.io import savemat

from inversionbench.core import registry
from inversionbench.data import sources
from inversionbench.data.base import File


def built(name, layout, root, monkeypatch):
    """Write the layout below `root` and let the card name the checksums of these files instead."""
    folder = root / name
    result = layout(folder, np.random.default_rng(7))
    cls = registry.get("dataset", name)
    files = []
    for file in cls.card.files:
        path = sources.locate(folder, file)
        sums = {}
        if path is not None and path.is_file():
            kind = "content_sha256" if file.content_sha256 else "sha256"
            content = file.content_sha256 and path.suffix == ".gz"
            sums = {kind: sources._content(name, path) if content else sources._digest(path, False)[0]}
        files.append(File(file.path, **sums))
    monkeypatch.setattr(cls, "card", replace(cls.card, files=tuple(files)))
    return result


def paint(code, rng, height=32, width=32, channels=3):
    """uint8 (height, width, channels), or (height, width) with one channel."""
    image = np.full((height, width, channels), 10 + 2 * code, np.uint8)
    top, left = height // 2 - 3, width // 2 - 3
    image[top : top + 6, left : left + 6] = rng.integers(0, 256, (6, 6, channels))
    return image if channels > 1 else image[..., 0]


def code_of(x):
    """Codes of images (n, channels, height, width)."""
    return np.rint((np.median(x, axis=(1, 2, 3)) - 10) / 2).astype(int)


def picture(kind, *args, **size):
    out = io.BytesIO()
    Image.fromarray(paint(*args, **size)).save(out, kind, **({"quality": 95} if kind == "JPEG" else {}))
    return out.getvalue()


def save(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)


def tar(path, files, mode="w:gz"):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def zipped(path, files):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)


def tree(folder, files):
    for name, data in files.items():
        save(folder / name, data)


def idx(array):
    head = bytes([0, 0, 8, array.ndim]) + b"".join(d.to_bytes(4, "big") for d in array.shape)
    return head + np.ascontiguousarray(array).tobytes()


def idx_set(folder, rng, packed=True):
    for stem, per in (("train", 8), ("t10k", 3)):
        y = rng.permutation(np.repeat(np.arange(10), per)).astype(np.uint8)
        x = np.stack([paint(c, rng, 28, 28, 1) for c in y])
        for name, data in ((f"{stem}-images-idx3-ubyte", idx(x)), (f"{stem}-labels-idx1-ubyte", idx(y))):
            save(folder / (name + ".gz" * packed), gzip.compress(data) if packed else data)


def _batch(codes, rng, **more):
    data = np.stack([paint(c, rng).transpose(2, 0, 1).reshape(-1) for c in codes])
    return pickle.dumps({"data": data, "filenames": ["a"] * len(codes), **more}, 2)


def cifar10(folder, rng, unpacked=False):
    files = {}
    for name in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]:
        y = rng.permutation(np.repeat(np.arange(10), 2))
        files[f"cifar-10-batches-py/{name}"] = _batch(y, rng, labels=y.tolist())
    files["cifar-10-batches-py/readme.html"] = b"<html>"
    tree(folder, files) if unpacked else tar(folder / "cifar-10-python.tar.gz", files)


def cifar10_jpeg(folder, rng):
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    files = {
        f"{part}/{name}/{i:04d}.jpg": picture("JPEG", code, rng)
        for part, count in (("test", 2), ("train", 8))
        for code, name in enumerate(names)
        for i in range(count)
    }
    tar(folder / "cifar10_jpeg.tar.gz", files)


def cifar100(folder, rng, unpacked=False):
    files = {}
    names = [f"thing{i:02d}" for i in range(100)]
    for i, name in enumerate(("bus", "pickup_truck", "streetcar", "tank", "tractor", "leopard", "lion", "tiger")):
        names[90 + i] = name
    names[80:83] = ["fox", "wolf", "cattle"]
    for name, per in (("train", 5), ("test", 1)):
        fine = rng.permutation(np.repeat(np.arange(100), per))
        labels = {"fine_labels": fine.tolist(), "coarse_labels": (fine % 20).tolist()}
        files[f"cifar-100-python/{name}"] = _batch(fine, rng, **labels)
    files["cifar-100-python/meta"] = pickle.dumps({"fine_label_names": names}, 2)
    tree(folder, files) if unpacked else tar(folder / "cifar-100-python.tar.gz", files)


def svhn(folder, rng):
    folder.mkdir(parents=True, exist_ok=True)
    for name, per in (("train", 4), ("test", 2), ("extra", 3)):
        digits = rng.permutation(np.repeat(np.arange(10), per))
        x = np.stack([paint(d, rng) for d in digits], axis=-1)
        y = np.where(digits == 0, 10, digits).astype(np.uint8)[:, None]
        savemat(folder / f"{name}_32x32.mat", {"X": x, "y": y}, do_compression=True)


def lfw(folder, rng, archive="lfw.tgz", top="lfw", mode="w:gz"):
    people = {"Ann_B": 9, "Carl_D": 3, "Eve_F": 8, "Gus_H": 2, "Ida_J": 8}
    files = {
        f"{top}/{name}/{name}_{i:04d}.jpg": picture("JPEG", code, rng, height=250, width=250)
        for code, (name, count) in enumerate(people.items())
        for i in range(1, count + 1)
    }
    if archive == "lfw-funneled.tgz":
        files[f"{top}/pairs_01.txt"] = b"10 300\n"
    tar(folder / archive, files, mode)


def celeba(folder, rng, unpacked=False):
    people = [5, 5, 5, 5, 5, 5, 8, 8, 8, 8, 8, 11, 11, 3, 3, 3, 3, 20, 20, 20]
    people = [int(p) for p in rng.permutation(people)]
    names = [f"{i:06d}.jpg" for i in range(1, len(people) + 1)]
    images = {
        f"img_align_celeba/{name}": picture("JPEG", person, rng, height=218, width=178)
        for name, person in zip(names, people)
    }
    tree(folder, images) if unpacked else zipped(folder / "img_align_celeba.zip", images)
    save(folder / "identity_CelebA.txt", "".join(f"{n} {p}\n" for n, p in zip(names, people)))
    lines = [f"{n}  {' '.join('1' if p % k == 0 else '-1' for k in (2, 3))}" for n, p in zip(names, people)]
    save(folder / "list_attr_celeba.txt", "\n".join([str(len(names)), "Even Three ", *lines, ""]))


def facescrub(folder, rng):
    for code, name in enumerate(["actors/faces/A", "actors/faces/B", "actresses/faces/C", "actresses/faces/D"]):
        for i in range(7):
            save(folder / name / f"{i}.jpeg", picture("JPEG", code, rng, height=40 + i, width=50))


def att_faces(folder, rng, kind="zip"):
    def pgm(subject):
        return b"P5\n92 112\n255\n" + paint(subject, rng, 112, 92, 1).tobytes()

    files = {f"s{s}/{i}.pgm": pgm(s) for s in range(1, 41) for i in range(1, 11)}
    if kind == "zip":
        zipped(folder / "att_faces.zip", {"README": b"faces", **files})
    elif kind == "tar":
        tar(folder / "att_faces.tar.gz", {f"att_faces/{name}": data for name, data in files.items()})
    else:
        tree(folder / "att_faces", files)


def ffhq(folder, rng, flat=False):
    entries = {}
    for number in (0, 1, 999, 1000, 1001, 2000):
        data = picture("PNG", number % 100, rng, height=128, width=128)
        where = "" if flat else f"{number // 1000 * 1000:05d}/"
        save(folder / "thumbnails128x128" / f"{where}{number:05d}.png", data)
        entries[str(number)] = {"thumbnail": {"file_md5": hashlib.md5(data).hexdigest()}}
    save(folder / "ffhq-dataset-v2.json", json.dumps(entries))


DISEASES = ("Atelectasis", "Cardiomegaly", "Effusion")


def chestxray8(folder, rng, unpacked=False, revision=False):
    rows, images = [], [{} for _ in range(12)]
    for patient in range(1, 41):
        for visit in range(3):
            sick = patient <= 24
            finding = DISEASES[patient % 3] if sick and visit else "No Finding"
            if patient == 5:
                finding = "Effusion|Mass"
            if patient == 6:
                finding = "Hernia"
            name = f"{patient:08d}_{visit:03d}.png"
            code = DISEASES.index(finding) if finding in DISEASES else 20
            images[patient % 12][f"images/{name}"] = picture("PNG", code, rng, height=64, width=64, channels=1)
            rows.append(f"{name},{finding},{visit},{patient},58,M,PA,2682,2749,0.143,0.143")
    head = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,W,H,x,y"
    end = "" if revision else ","
    name = "Data_Entry_2017_v2020.csv" if revision else "Data_Entry_2017.csv"
    save(folder / name, "".join(line + end + "\n" for line in [head, *rows]))
    for i, files in enumerate(images, 1):
        tree(folder, files) if unpacked else tar(folder / f"images_{i:03d}.tar.gz", files)


def ham10000(folder, rng, unpacked=False, table="HAM10000_metadata.csv"):
    names = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
    mark = '"{}"' if table.endswith(".tab") else "{}"
    comma = "\t" if table.endswith(".tab") else ","
    rows, parts = [["lesion_id", "image_id", "dx", "dx_type"]], ({}, {})
    for i in range(140):
        lesion = i // 2 if i % 7 else i
        code = lesion % 7
        image = f"ISIC_{24306 + i:07d}"
        parts[i % 2][f"{image}.jpg"] = picture("JPEG", code, rng, height=45, width=60)
        rows.append([mark.format(v) for v in (f"HAM_{lesion:07d}", image, names[code], "histo")])
    save(folder / table, "".join(comma.join(row) + "\n" for row in rows))
    for i, files in enumerate(parts, 1):
        stem = f"HAM10000_images_part_{i}"
        tree(folder / stem, files) if unpacked else zipped(folder / f"{stem}.zip", files)


WNIDS = {1: "n03", 2: "n01", 3: "n02"}  # the ids of the devkit are not in the order of the labels


def imagenet(folder, rng):
    rank = {wnid: i for i, wnid in enumerate(sorted(WNIDS.values()))}
    truth = [int(t) for t in rng.permutation(np.repeat([1, 2, 3], 10))]
    files = {
        f"ILSVRC2012_val_{i:08d}.JPEG": picture("JPEG", rank[WNIDS[t]], rng, height=40 + i % 3, width=48)
        for i, t in enumerate(truth, 1)
    }
    tar(folder / "ILSVRC2012_img_val.tar", files, "w")
    kinds = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("gloss", "O"), ("num_children", "O")]
    rows = [(number, wnid, "word", "gloss", 0) for number, wnid in WNIDS.items()]
    rows.append((4, "n00", "parent", "gloss", 3))  # not a leaf
    meta = io.BytesIO()
    savemat(meta, {"synsets": np.array(rows, kinds)[:, None]})
    top = "ILSVRC2012_devkit_t12/data/"
    text = "".join(f"{t}\n" for t in truth).encode()
    kit = {"meta.mat": meta.getvalue(), "ILSVRC2012_validation_ground_truth.txt": text}
    tar(folder / "ILSVRC2012_devkit_t12.tar.gz", {top + name: data for name, data in kit.items()})
    classes = {}
    for wnid, code in rank.items():
        out = folder / "one.tar"
        tar(out, {f"{wnid}_{i}.JPEG": picture("JPEG", code, rng, height=40, width=40) for i in range(10)}, "w")
        classes[f"{wnid}.tar"] = out.read_bytes()
        out.unlink()
    tar(folder / "ILSVRC2012_img_train.tar", classes, "w")
