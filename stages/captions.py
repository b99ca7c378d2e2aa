"""Stage captions: token features of every caption by BERT, its embedding by CLIP, or token ids where the encoder is
trained with the model."""

from crossmodal.captions.bert import load_bert, token_ids
from crossmodal.captions.clip import embed_captions
from crossmodal.captions.encode import encode_captions, store_ids
from crossmodal.captions.vocabulary import obtain_vocabulary
from crossmodal.datasets.records import read_dataset
from crossmodal.errors import UserError, exits_cleanly
from crossmodal.features.store import FeatureStore
from crossmodal.paths import BERT, CAPTIONS, DATASET
from crossmodal.published.dual_encoder import load_half
from crossmodal.settings.derived import caption_reading
from crossmodal.settings.params import load_params
from crossmodal.workspace import publish, work_folder


@exits_cleanly
def main() -> None:
    params = load_params()
    settings, read_by = params.captions, caption_reading(params)
    records = read_dataset(DATASET).records
    captions = [caption for record in records for caption in record.captions]
    if not BERT.is_dir():
        raise UserError(f"{BERT}: not found; run the bert stage first")
    inputs = [DATASET / "manifest.json", *sorted(BERT.iterdir())]
    work = work_folder("captions", settings.model_dump(), inputs)
    out = work / "out"
    if settings.encoder == "bigru":
        training = (caption for record in records if record.split == "train" for caption in record.captions)
        vocabulary = obtain_vocabulary(settings.vocabulary, training, settings.min_count)
        store_ids([vocabulary.encode(caption, settings.max_tokens) for caption in captions], out, read_by)
        vocabulary.save(out / "vocabulary.json")
    elif settings.encoder == "clip":
        embed_captions(captions, *load_half(BERT, "text", "bert"), out, batch_size=settings.batch_size)
    else:
        model, tokenizer = load_bert(BERT)
        if settings.encoder == "bert":
            encode_captions(
                captions, model, tokenizer, out, max_tokens=settings.max_tokens, batch_size=settings.batch_size
            )
        else:
            store_ids(token_ids(captions, tokenizer, model.config, settings.max_tokens), out, read_by)
    publish(out, CAPTIONS, work)
    lengths = FeatureStore(CAPTIONS).lengths
    print(f"captions: {lengths.sum():,} tokens of {len(lengths):,} captions ({settings.encoder}) in {CAPTIONS}")


if __name__ == "__main__":
    main()
