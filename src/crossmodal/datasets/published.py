"""Datasets that others give out: the archives they are made from. The photographs are under Flickr's terms."""

from __future__ import annotations

from crossmodal.datasets.archives.obtain import Archive
from crossmodal.datasets.assemble import Published

FLICKR8K = "https://github.com/jbrownlee/Datasets/releases/download/Flickr8k"
FLICKR30K_FORM = "https://shannon.cs.illinois.edu/DenotationGraph/"
FLICKR30K_TERMS = (
    f"The photographs of Flickr30k are given out on request: fill in the form at {FLICKR30K_FORM} and download "
    "flickr30k-images.tar.gz (4.4 GB, 31,783 photographs; a zip archive of the folder does as well)."
)
KARPATHY = "https://github.com/Delphboy/karpathy-splits/raw/main"
COCO_IMAGES = "http://images.cocodataset.org/zips"

# The captions of Flickr8k, Flickr30k and COCO in Karpathy's splits; no checksum of it is known.
CAPTION_DATASETS = Archive(
    "caption_datasets.zip",
    (
        "https://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip",
        "https://huggingface.co/datasets/gpantaz/karpathy_split/resolve/main/caption_datasets.zip",
    ),
)

PUBLISHED = {
    # Hodosh et al., "Framing Image Description as a Ranking Task", JAIR 47, 2013: 6,000 / 1,000 / 1,000 photographs.
    # The authors' own address is gone; this release is the copy in common use. Two unrelated projects (the R package
    # torchvision, and a CMake script) check these addresses against the same md5 sums. The sizes are rounded.
    "flickr8k": Published(
        "flickr8k",
        captions=(
            Archive(
                "Flickr8k_text.zip",
                (f"{FLICKR8K}/Flickr8k_text.zip",),
                ("md5:bf6c1abcb8e4a833b7f922104de18627",),
                size=2_300_000,
            ),
        ),
        photographs=(
            (
                Archive(
                    "Flickr8k_Dataset.zip",
                    (f"{FLICKR8K}/Flickr8k_Dataset.zip",),
                    ("md5:f18a1e2920de5bd84dae7cf08ec78978",),
                    size=1_100_000_000,
                ),
            ),
        ),
        members={
            "captions": "Flickr8k.token.txt",
            "train": "Flickr_8k.trainImages.txt",
            "val": "Flickr_8k.devImages.txt",
            "test": "Flickr_8k.testImages.txt",
        },
    ),
    # Young et al., "From image descriptions to visual denotations", TACL 2, 2014: 29,000 / 1,014 / 1,000 photographs,
    # which their owners give out on request. The captions' checksum is that of the Git LFS pointer in the repository
    # of the first address; the second is good if it serves the same file.
    "flickr30k": Published(
        "flickr30k",
        captions=(
            Archive(
                "dataset_flickr30k.json",
                (
                    f"{KARPATHY}/dataset_flickr32k.json",  # so spelt
                    "https://huggingface.co/datasets/openflamingo/eval_benchmark/resolve/main/flickr30k/dataset_flickr30k.json",
                ),
                ("sha256:64c85af0e9d187091cb88890e56b3f640ac48386196a930d3ff8433d73165135",),
                size=111_042_326,
            ),
            CAPTION_DATASETS,
        ),
        photographs=(
            (
                Archive(
                    "flickr30k-images.tar.gz",
                    (),
                    size=4_400_000_000,
                    terms=FLICKR30K_TERMS,
                ),
                Archive("flickr30k-images.zip", ()),
            ),
        ),
    ),
    # Chen et al., "Microsoft COCO Captions", 2015 (arXiv 1504.00325): 113,287 / 5,000 / 5,000 photographs of COCO 2014;
    # annotations CC BY 4.0. TensorFlow Datasets checks the photographs against the same sums; the captions' is that of
    # the Git LFS pointer in the repository of the address.
    "coco": Published(
        "coco",
        captions=(
            Archive(
                "dataset_coco.json",
                (f"{KARPATHY}/dataset_coco.json",),
                ("sha256:af76e819987c9ced8452fdb4da823524e033f7baa097cf40bab83bdab4c469ea",),
                size=408_860_810,
            ),
            CAPTION_DATASETS,
        ),
        photographs=(
            (
                Archive(
                    "train2014.zip",
                    (f"{COCO_IMAGES}/train2014.zip",),
                    ("sha256:ede4087e640bddba550e090eae701092534b554b42b05ac33f0300b984b31775",),
                    size=13_510_573_713,
                ),
            ),
            (
                Archive(
                    "val2014.zip",
                    (f"{COCO_IMAGES}/val2014.zip",),
                    ("sha256:fe9be816052049c34717e077d9e34aa60814a55679f804cd043e3cbee3b9fde0",),
                    size=6_645_013_297,
                ),
            ),
        ),
    ),
}
