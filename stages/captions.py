"""Stage captions: token features of every caption by BERT, its embedding by CLIP, or token ids where the encoder is
trained with the model."""

from crossmodal.captions.base import store_captions
from crossmodal.captions.encoders import ENCODERS
from crossmodal.datasets.records import read_dataset
from crossmodal.errors import UserError, exits_cleanly
from crossmodal.features.store import FeatureStore
from crossmodal.paths import BERT, CAPTIONS, DATASET
from crossmodal.runtime import setting_path
from crossmodal.settings.params import load_params
from crossmodal.workspace import publish, work_folder


@exits_cleanly
def main() -> None:
    settings = load_params().captions
    records = read_dataset(DATASET).records
    captions = [caption for record in records for caption in record.captions]
    if not BERT.is_dir():
        raise UserError(f"{BERT}: not found; run the bert stage first")
    inputs = [DATASET / "manifest.json", *sorted(BERT.iterdir())]
    if settings.vocabulary != "count" and (vocabulary := setting_path(settings.vocabulary)).is_file():
        inputs.append(vocabulary)
    work = work_folder("captions", settings.model_dump(), inputs)
    out = work / "out"
    training = (caption for record in records if record.split == "train" for caption in record.captions)
    encoder = ENCODERS[settings.encoder].make(settings, BERT, training)
    store_captions(encoder, captions, out, batch_size=settings.batch_size)
    publish(out, CAPTIONS, work)
    lengths = FeatureStore(CAPTIONS).lengths
    print(f"captions: {lengths.sum():,} tokens of {len(lengths):,} captions ({settings.encoder}) in {CAPTIONS}")


if __name__ == "__main__":
    main()
