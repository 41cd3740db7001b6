import re
import types

import jax
import numpy as np
import pytest

from helpers.tiny import tiny_config
from ssljax import network, overrides, parts, recipe
from ssljax.data import memory
from ssljax.data.splits import Split
from ssljax.description import describe
from ssljax.errors import RunError, UsageError
from ssljax.network import make_model
from ssljax.training import devices


def change(config, knob, value):
    *path, last = knob.split(".")
    for key in path:
        config = config[key]
    with config.unlocked():
        config[last] = value


@pytest.mark.parametrize(
    ("knob", "value", "message"),
    [
        ("method", "fixmatsch", r"config.method 'fixmatsch' .* fixmatch, flexmatch, .*, vat;"),
        (
            "model",
            "vgg",
            r"config.model 'vgg' does not exist; there are: cnn13, .*, wide_resnet",
        ),
        ("dataset", "mnist.1@40-100", r"config.dataset 'mnist' does not exist; there are: cifar10"),
        ("dataset", "digits@40", r"config.dataset: dataset 'digits@40' is not .* digits.1@40-100"),
        ("dataset", "digits.1@5000-100", r"5000 labels were asked for; allowed: 1 to 1437"),
        ("dataset", "digits.1@40-5000", r"5000 validation images .* allowed: 0 to 1437"),
        ("batch_size", 6, r"config.batch_size is 6; allowed: a multiple of the 4 devices"),
        ("batch_size", 0, r"config.batch_size is 0; allowed: from 1 up"),
        (
            "method_args.threshold",
            -0.5,
            r"config.method_args: threshold is -0.5; allowed: from 0 to 1",
        ),
        ("method_args.treshold", 0.9, r"method_args.treshold does not exist; allowed: threshold"),
        ("model_args.filtres", 8, r"config.model_args.filtres does not exist; allowed: filters"),
        ("augment.weak", "weak", r"config.augment.weak 'weak' .* weak_cifar"),
        (
            "augment.strong",
            "stronk",
            r"config.augment.strong 'stronk' .* ctaugment, .* none, .*rand",
        ),
        (
            "optimizer.name",
            "lion",
            r"optimizer.name 'lion' does not exist; there are: adam, adamw, keras_sgd",
        ),
        ("optimizer.schedule", "step", r"schedule 'step' does not exist; there are: constant"),
        ("optimizer.lr", 0.0, r"config.optimizer.lr is 0.0; allowed: above 0"),
        ("optimizer.lr", float("nan"), r"config.optimizer.lr is nan"),
        ("ema_decay", 1.5, r"config.ema_decay is 1.5; allowed: from 0 to 1"),
        ("unlabeled", "none", r"config.unlabeled is 'none'; allowed: exclude_labeled, all, strict"),
        ("labels_per_class", "even", r"labels_per_class is 'even'; allowed: natural, balanced"),
        ("image_size", 9, r"config.image_size is 9; allowed: 0, as digits has one size"),
        ("image_size", -1, r"config.image_size is -1; allowed: from 0 up"),
        (
            "split_file",
            "nowhere.json",
            r"config.split_file nowhere.json cannot be read: .* No such",
        ),
        ("num_steps", -1, r"config.num_steps is -1; allowed: from 1 to 2147483647"),
    ],
)
def test_bad_values_are_named_with_what_is_allowed(config, knob, value, message):
    change(config, knob, value)
    with pytest.raises(UsageError, match=message) as caught:
        recipe.build(config)
    assert "\n" not in str(caught.value)


NONSENSE = {
    "wide_resnet": [("filters", 0), ("filters", 2**70), ("repeat", 0), ("repeat", 10**12),
                    ("scales", 0), ("scales", "abc"), ("scales", 1.5), ("filters", True),
                    ("batch_norm_momentum", 2.0), ("batch_norm_momentum", "x")],
    "cnn13": [("filters", -1)],
    "convnet": [("filters", 0), ("scales", 10**6)],
    "shake_resnet": [("repeat", 0), ("filters", None)],
    "resnet18": [("blocks", ()), ("blocks", (1, 0)), ("blocks", ("x",)), ("blocks", 3)],
}  # fmt: skip


@pytest.mark.parametrize(
    ("model", "argument", "value"), [(m, *pair) for m, pairs in NONSENSE.items() for pair in pairs]
)
def test_a_network_of_nonsense_is_refused(model, argument, value):
    config = overrides.load("supervised_digits", [f"model={model}"])
    with config.unlocked(), config.ignore_type():
        config.model_args[argument] = value
    with pytest.raises(UsageError, match=rf"config.model_args.*{argument}.*; allowed: ") as caught:
        make_model(config, num_classes=10)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("method", "argument", "value"),
    [
        ("mixmatch", "nu", 10**12), ("remixmatch", "strong_views", 0), ("mixmatch", "nu", 1.5),
        ("fixmatch", "threshold", "x"), ("fixmatch", "weak_pass", 3), ("mixup", "beta", 0.0),
        ("mixmatch", "use_ema_guess", "no"), ("uda", "temperature", None),
    ],
)  # fmt: skip
def test_arguments_of_a_method_that_are_nonsense_are_refused(method, argument, value):
    config = overrides.load("supervised_digits", [f"method={method}"])
    with config.unlocked(), config.ignore_type():
        config.method_args[argument] = value
    split = Split(np.arange(4), np.arange(4), np.arange(0))
    with pytest.raises(UsageError, match=rf"config.method_args.*{argument}.*; allowed: "):
        parts.make_method(config, split)


def test_a_ramp_longer_than_32_bits_is_no_overflow():
    config = tiny_config("mixmatch")
    config.method_args.ramp_images = 10**12
    recipe.build(config)


def test_devices_that_jax_cannot_start_are_one_line(monkeypatch):
    def fail():
        raise AssertionError

    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    monkeypatch.setattr(jax, "devices", fail)
    with pytest.raises(
        UsageError, match="JAX_PLATFORMS is 'cuda', and JAX cannot start it"
    ) as caught:
        network.available()
    assert "\n" not in str(caught.value)


def test_a_full_device_is_one_line():
    said = "a smaller config.batch_size, .* Out of memory allocating 9"
    with pytest.raises(RunError, match=said), devices.telling_of_full_memory():
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory\nallocating 9 bytes")
    with pytest.raises(jax.errors.JaxRuntimeError), devices.telling_of_full_memory():
        raise jax.errors.JaxRuntimeError("INTERNAL: x")


@pytest.mark.parametrize("strong", ["randaugment", "ctaugment"])
def test_an_augmentation_recipe_that_does_not_exist_is_refused(config, strong):
    config.augment.strong, config.augment.recipe = strong, "mnist"
    with pytest.raises(
        UsageError, match="config.augment: recipe is 'mnist'; allowed: cifar, .*imagenet"
    ):
        recipe.build(config)


def test_an_augmentation_that_does_not_fit_the_images_is_refused(config):
    config.augment.strong = "randaugment"
    with pytest.raises(UsageError, match=r"Cutout of 16 pixels; allowed for images of 8×8: less"):
        recipe.build(config)


def test_supervised_learns_from_weak_or_strong_views_only():
    config = tiny_config("supervised")
    config.method_args = dict(view="both")
    with pytest.raises(UsageError, match="config.method_args: view is 'both'; allowed: weak"):
        recipe.build(config)


def test_a_negative_temperature_is_refused():
    config = tiny_config("mixmatch")
    config.method_args.temperature = -1.0
    with pytest.raises(UsageError, match=r"temperature is -1.0; allowed: above 0"):
        recipe.build(config)


def test_mixmatch_with_another_ratio_is_refused_before_anything_is_compiled():
    config = tiny_config("mixmatch")
    config.uratio = 2
    with pytest.raises(UsageError, match="uratio=1"):
        recipe.build(config)


def test_a_config_that_lacks_a_knob_is_refused(config):
    with config.unlocked():
        del config.ema_decay
    with pytest.raises(UsageError, match="ema_decay"):
        recipe.build(config)


def test_no_unlabelled_images_are_refused_for_a_method_that_needs_them(config):
    config.unlabeled = "exclude_labeled"
    config.dataset = "digits.1@all-0"
    with pytest.raises(UsageError, match="no unlabelled images, which config.method fixmatch"):
        recipe.build(config)


def test_the_default_unlabelled_list_of_each_recipe_is_the_published_one(untraced):
    fixmatch = recipe.build(tiny_config("fixmatch")).split
    mixmatch = recipe.build(tiny_config("mixmatch")).split
    assert len(fixmatch.unlabeled) + len(fixmatch.valid) == 1437
    assert len(mixmatch.unlabeled) + len(mixmatch.valid) + 40 == 1437


def test_data_that_does_not_fit_in_memory_is_refused_with_its_size(config, monkeypatch):
    monkeypatch.setattr("ssljax.data.memory.host_bytes", lambda: 300_000)
    with pytest.raises(
        UsageError, match=r"on each of 4 CPU devices: 411.9 kB do not fit in .* 300"
    ):
        recipe.build(config)


@pytest.mark.parametrize(
    ("knob", "value", "message"),
    [
        ("num_steps", 2**31, "config.num_steps is 2147483648; allowed: from 1 to 2147483647"),
        (
            "num_epochs",
            1e18,
            r"config.num_epochs is 1e\+18: num_steps is .*; allowed: from 0 to 21",
        ),
        (
            "batch_size",
            10**9,
            "config.batch_size is 1000000000 and .*: the 5,000,000,000 images of",
        ),
        ("uratio", 10**12, "config.uratio 1000000000000: the .* images of a step.* do not fit in"),
        ("filters", 10**6, "config.model is wide_resnet: the state of training, .* do not fit in"),
    ],
)
def test_sizes_that_no_machine_has_are_refused(config, knob, value, message):
    setattr(config.model_args if knob == "filters" else config, knob, value)
    with pytest.raises(UsageError, match=message):
        recipe.build(config)


def test_an_evaluation_has_no_more_room_than_images(config):
    config.eval_batch_size = 10**8
    experiment = recipe.build(config)
    assert experiment.eval_batch_size == 360
    assert experiment.config["eval_batch_size"] == 10**8


def test_the_memory_of_an_accelerator_is_its_own(untraced):
    class Device:
        platform = "gpu"
        process_index = 0

        def memory_stats(self):
            return {"bytes_limit": 90_000}

        def __str__(self):
            return "gpu:1"

    with pytest.raises(
        UsageError, match="the data: 103.0 kB do not fit in the memory of gpu:1, 90"
    ):
        devices.require_room("the data", 103_000, [Device()])
    devices.require_step(10**12, 80_000, 8, [Device()])  # it may need less than estimated


def test_a_step_that_does_not_fit_is_refused_with_the_batch_that_would(monkeypatch):
    config = tiny_config()
    config.batch_size = 64
    monkeypatch.setattr("ssljax.data.memory.host_bytes", lambda: 1_510_000_000)
    with pytest.raises(
        UsageError,
        match=r"a step needs about [\d.]+ MB on each of 4 CPU devices, .* 1\.5 GB; .* 1\.5 GB\. "
        r"A config\.batch_size of about \d+ would fit",
    ):
        recipe.build(config)


def test_the_memory_of_a_process_is_what_it_is_limited_to(monkeypatch):
    real = memory.host_bytes()
    assert real > 10**8
    monkeypatch.setattr("resource.getrlimit", lambda which: (5_000_000, -1))
    assert memory.host_bytes() == 5_000_000
    monkeypatch.setattr("resource.getrlimit", lambda which: (-1, -1))
    assert memory.host_bytes() == real


def test_averages_that_are_too_long_for_the_run_are_noted(config):
    change(config, "num_steps", 200)
    change(config, "ema_decay", 0.98)  # forgets within 50 steps
    assert "near its random start" not in describe(recipe.build(config))
    change(config, "ema_decay", 0.995)
    text = describe(recipe.build(config))
    assert "note: config.ema_decay is 0.995, which averages over more steps than the 200" in text
    assert "stays near its random start; use at most --config.ema_decay=0.95\n" in text + "\n"


def test_the_memory_a_device_will_need_is_described(config):
    text = describe(recipe.build(config))
    assert re.search(
        r"data on each device: 103\.0 kB of uint8 images and indices; a step needs about [\d.]+ kB",
        text,
    )


@pytest.mark.parametrize(
    ("coordinator", "num_processes", "process_id"),
    [
        ("host0:1234", 0, 0),
        ("host0:1234", 2, 2),
        ("host0", 2, 0),
        ("host0:x", 2, 0),
        ("host0:70000", 2, 0),
        ("", 2, 0),
        ("", 0, 1),
    ],
)
def test_processes_that_do_not_fit_together_are_refused(
    config, coordinator, num_processes, process_id
):
    config.distributed.coordinator = coordinator
    config.distributed.num_processes = num_processes
    config.distributed.process_id = process_id
    with pytest.raises(UsageError, match=f"config.distributed is coordinator='{coordinator}' "):
        recipe.prepare(config)


def test_a_problem_that_health_does_not_know_is_refused(config):
    config.health.stop_on = ("collapse", "boredom")
    with pytest.raises(UsageError, match="stop_on is 'boredom'; allowed: non_finite, mask_rate"):
        recipe.build(config)


def test_staged_data_needs_a_place(config):
    config.stage.data_url = "memory://bucket/data"
    with pytest.raises(UsageError, match="config.data_dir is ''; allowed with config.stage.data"):
        recipe.build(config)


def test_processes_with_different_numbers_of_devices_are_refused():
    class Device:
        def __init__(self, process):
            self.process_index = process

    devices.require_even([Device(i) for i in (0, 0, 1, 1)])
    with pytest.raises(UsageError, match="1 on process 0, 2 on process 1; allowed: equally many"):
        devices.require_even([Device(i) for i in (0, 1, 1)])


@pytest.mark.parametrize(
    ("cores", "batch_size", "told", "expected"),
    [(4, 64, -1, 4), (4, 6, -1, 3), (4, 7, -1, 1), (1, 64, -1, 1), (4, 64, 2, 1)],
)
def test_a_cpu_is_one_device_per_core_where_the_batch_divides(
    cores, batch_size, told, expected, monkeypatch
):
    monkeypatch.setattr(devices, "cores", lambda: cores)
    jax_config = types.SimpleNamespace(jax_num_cpu_devices=told)
    monkeypatch.setattr(devices.jax, "config", jax_config)
    assert devices.devices_for(batch_size) == expected


def test_what_is_computed_does_not_depend_on_the_cores(config, monkeypatch):
    monkeypatch.setattr(devices, "devices_for", lambda batch_size: 8)
    assert recipe._cpu_devices(config, several=False) == 8
    assert recipe._cpu_devices(config, several=True) == 1
    for knob, value in (("sync_bn", False), ("per_worker_batch_size", 2), ("num_seeds", 3)):
        one = config.copy_and_resolve_references()
        one.update_from_flattened_dict({knob: value})
        assert recipe._cpu_devices(one, several=False) == 1, knob


def test_cores_that_a_batch_leaves_idle_are_noted(config, monkeypatch, capsys):
    monkeypatch.setattr(devices, "cores", lambda: 3)
    monkeypatch.setattr(jax, "device_count", lambda: 2)
    config.cpu_devices = 0
    recipe._note_cores(config)
    printed = capsys.readouterr().out
    assert "note: 2 of 3 cores are devices, since config.batch_size is 8" in printed
    config.batch_size = 9
    recipe._note_cores(config)
    assert not capsys.readouterr().out


def test_a_second_recipe_of_a_process_takes_the_devices_that_are_there(config, capsys):
    """As in a notebook: JAX has already started with four devices."""
    config.cpu_devices = 3
    recipe.prepare(config)
    assert jax.local_device_count() == 4
    printed = capsys.readouterr().out
    assert "note: config.cpu_devices is 3, but JAX has started with 4 in this process" in printed
    config.cpu_devices = 4
    recipe.prepare(config)
    assert "note: config.cpu_devices" not in capsys.readouterr().out
