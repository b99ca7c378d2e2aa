"""Stage bert: obtain a published BERT or the text half of CLIP, or fit a small BERT on the training captions."""

from crossmodal.captions.bert import obtain_bert
from crossmodal.captions.fit import fit_bert
from crossmodal.datasets.records import read_dataset
from crossmodal.errors import exits_cleanly
from crossmodal.paths import BERT, DATASET
from crossmodal.published.dual_encoder import obtain_half
from crossmodal.settings.derived import bert_source, settings_in_use
from crossmodal.settings.params import load_params
from crossmodal.terminal import printable
from crossmodal.workspace import publish, work_folder


@exits_cleanly
def main() -> None:
    params = load_params()
    source, records = bert_source(params), read_dataset(DATASET).records
    work = work_folder("bert", settings_in_use(params)["bert"], [DATASET / "manifest.json"])
    out, state = work / "out", work / "state"
    out.mkdir(exist_ok=True)
    state.mkdir(exist_ok=True)
    if source == "fit":
        captions = [record.captions for record in records if record.split == "train"]
        fit_bert(captions, params.bert, out, state)
    elif source == "clip":
        obtain_half(params.clip.source, "text", out)
    else:
        obtain_bert(source, params.bert.layers, out)
    publish(out, BERT, work)
    print(f"bert: {printable(source)} in {BERT}")


if __name__ == "__main__":
    main()
