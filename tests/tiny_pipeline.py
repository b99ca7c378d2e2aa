"""A whole pipeline in a folder, evaluated, small enough to make in seconds."""

import shutil
from pathlib import Path

import timm
import yaml
from PIL import Image
from safetensors.torch import save_file
from tokenizers import Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from crossmodal.captions.base import store_captions
from crossmodal.captions.bert import load_bert
from crossmodal.captions.bert_encoders import BertFeatures
from crossmodal.datasets.records import ImageRecord, read_dataset, write_dataset
from crossmodal.models.base import InputSizes
from crossmodal.models.checkpoint import MatcherConfig, save_matcher
from crossmodal.models.registry import build_model
from crossmodal.regions.backends import load_extractor
from crossmodal.regions.extraction.extract import Extraction, extract_regions
from crossmodal.regions.grid import fetch_backbone
from crossmodal.settings.derived import image_reading
from crossmodal.settings.params import load_params
from stages import evaluate

ROOT = Path(__file__).resolve().parents[1]
COLOURS = ["red", "lime", "blue", "yellow", "black", "white", "gray", "purple"]
MATCHERS = ("vsepp", "scan")
BACKBONE = "mobilenetv3_small_050"


def write_pipeline(folder):
    """A training image, then eight test images of one colour each with two captions; features, random networks."""
    settings = yaml.safe_load((ROOT / "params.yaml").read_text())
    settings["regions"]["backend"], settings["evaluate"]["shortlist"] = "grid", 10
    save_file(timm.create_model(BACKBONE).state_dict(), folder / "weights.safetensors")
    settings["grid"] |= {"model": BACKBONE, "weights": str(folder / "weights.safetensors"), "image_size": 64}
    (folder / "params.yaml").write_text(yaml.safe_dump(settings))
    params = load_params(folder / "params.yaml")

    (folder / "data/dataset/images").mkdir(parents=True)
    Image.new("RGB", (48, 32), "brown").save(folder / "data/dataset/brown.png")
    records = [ImageRecord("brown", "brown.png", "train", 48, 32, ("a brown picture",))]
    for colour in COLOURS:
        Image.new("RGB", (48, 32), colour).save(folder / f"data/dataset/images/{colour}.png")
        captions = (f"a {colour} picture", f"nothing but {colour} <b>")
        records.append(ImageRecord(colour, f"images/{colour}.png", "test", 48, 32, captions))
    write_dataset(folder / "data/dataset", "colours", records)
    dataset = read_dataset(folder / "data/dataset")

    (folder / "models/detector").mkdir(parents=True)
    fetch_backbone(params.grid, folder / "models/detector")
    extractor = load_extractor(params, folder / "models/detector")
    how = Extraction(batch_size=4, backend="grid", settings=image_reading(params))
    extract_regions(dataset, extractor, folder / "data/regions", how)

    words = ["<pad>", "<unk>", "a", "picture", "nothing", "but", *COLOURS]
    tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>").save_pretrained(folder / "models/bert")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertModel(BertConfig(vocab_size=len(words), **sizes), add_pooling_layer=False).save_pretrained(
        folder / "models/bert"
    )
    texts = [caption for record in records for caption in record.captions]
    encoder = BertFeatures(*load_bert(folder / "models/bert"), params.captions.max_tokens)
    store_captions(encoder, texts, folder / "data/captions", batch_size=4)
    for name in MATCHERS:
        model_settings = params.model_copy(update={"model": name}).model_settings
        inputs = InputSizes(regions=extractor.feature_dim, words=16)
        (folder / name).mkdir()
        config = MatcherConfig(name, model_settings.model_dump(), inputs, f"key of {name}", "bert", {})
        save_matcher(folder / name, build_model(name, model_settings, inputs), config)


def evaluate_matchers() -> None:
    """Evaluate both matchers of the pipeline in the working folder, each into ``evaluation of NAME``."""
    for name in MATCHERS:
        shutil.copytree(name, "models/matcher", dirs_exist_ok=True)
        evaluate.main()
        Path("results/evaluation").rename(f"evaluation of {name}")
