"""Stage captions: BERT's token features of every caption."""

from crossmodal.captions.bert import load_bert
from crossmodal.captions.encode import encode_captions
from crossmodal.datasets.records import read_dataset
from crossmodal.errors import exits_cleanly
from crossmodal.features.resume import publish, work_folder
from crossmodal.features.store import FeatureStore
from crossmodal.params import load_params
from stages.paths import BERT, CAPTIONS, DATASET


@exits_cleanly
def main() -> None:
    params = load_params()
    captions = [caption for record in read_dataset(DATASET).records for caption in record.captions]
    model, tokenizer = load_bert(BERT)
    inputs = [DATASET / "manifest.json", *sorted(BERT.iterdir())]
    work = work_folder("captions", params.captions.model_dump(), inputs)
    out = work / "out"
    encode_captions(
        captions,
        model,
        tokenizer,
        out,
        max_tokens=params.captions.max_tokens,
        batch_size=params.captions.batch_size,
    )
    publish(out, CAPTIONS, work)
    lengths = FeatureStore(CAPTIONS).lengths
    print(f"captions: {lengths.sum():,} tokens of {len(lengths):,} captions in {CAPTIONS}")


if __name__ == "__main__":
    main()
