"""Stage bert: obtain a published BERT or the text half of CLIP, or fit a small BERT on the training captions."""

from collections.abc import Sequence
from pathlib import Path

from crossmodal.captions.bert import fetch_bert
from crossmodal.captions.fit import fit_bert
from crossmodal.captions.further import join_captions
from crossmodal.datasets.records import ImageRecord, read_dataset
from crossmodal.errors import exits_cleanly
from crossmodal.paths import BERT, DATASET
from crossmodal.published.dual_encoder import fetch_half
from crossmodal.settings.derived import bert_source, further_captions, settings_in_use
from crossmodal.settings.params import load_params
from crossmodal.terminal import printable
from crossmodal.workspace import publish, work_folder


@exits_cleanly
def main() -> None:
    params = load_params()
    source, records = bert_source(params), read_dataset(DATASET).records
    further = further_captions(params)
    files = [DATASET / "manifest.json", *([further] if further else [])]
    work = work_folder("bert", settings_in_use(params)["bert"], files)
    out, state = work / "out", work / "state"
    out.mkdir(exist_ok=True)
    state.mkdir(exist_ok=True)
    if source == "fit":
        captions = _captions(records, further)
        fit_bert(captions, params.bert, out, state)
    elif source == "clip":
        fetch_half(params.clip.source, "text", out)
    else:
        fetch_bert(source, params.bert.layers, out)
    publish(out, BERT, work)
    print(f"bert: {printable(source)} in {BERT}")


def _captions(records: Sequence[ImageRecord], further: Path | None) -> list[Sequence[str]]:
    if further is None:
        return [record.captions for record in records if record.split == "train"]
    joined = join_captions(records, further)
    print(
        f"bert: {printable(further)} adds {joined.added:,} captions to those of the training photographs; left out: "
        f"{joined.held_photographs:,} of photographs in val and test, {joined.held_captions:,} that are captions there "
        f"word for word, {joined.repeated:,} that a training photograph has already"
    )
    return list(joined.images)


if __name__ == "__main__":
    main()
