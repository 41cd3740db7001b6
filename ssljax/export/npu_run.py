"""Trains a bundle with TensorFlow 1.15, on an Ascend NPU or a CPU: `python run.py --device=npu`.

A bundle is written by `launch.py --mode=export --format=npu_bundle` of ssljax and contains this
file. It needs Python 3.7, NumPy, TensorFlow 1.15 and, on an NPU, npu_bridge, but not ssljax.

The input of a step (images, views, random numbers) is a function of (seed, step), so that an
interrupted run continues as if it had not been interrupted. The output directory holds TensorFlow
checkpoints, `metrics.jsonl` and `results.json`, with the names used by ssljax. The bundle has
checksums, `SHA256SUMS`, and so has each checkpoint, `manifest-<step>.json`: both are verified
first.
"""

import argparse
import contextlib
import errno
import fcntl
import hashlib
import io
import json
import math
import os
import queue
import re
import select
import shutil
import signal
import sys
import threading
import time
import zipfile

import numpy as np
import tensorflow as tf

tf1 = tf.compat.v1
tf1.disable_control_flow_v2()  # TensorFlow 2's cannot change these variables in a conditional
FORMAT = 1  # version of bundles
PRECISIONS = ("force_fp32", "must_keep_origin_dtype", "allow_mix_precision", "allow_fp32_to_fp16")


class Mistake(Exception):
    """Invalid input, described in one line."""


class Failure(Exception):
    """A run that cannot continue although its input was valid."""


class Interrupted(Exception):
    """A signal stopped the run after its state was saved."""


# Files, written atomically.


def digest(path):
    """Returns the SHA-256 of a file, in hexadecimal digits."""
    sha256 = hashlib.sha256()
    with open(path, "rb") as file:
        for part in iter(lambda: file.read(2**20), b""):
            sha256.update(part)
    return sha256.hexdigest()


def require_same(directory, sums, remedy):
    """Compares files with their checksums."""
    for name, expected in sums:
        path = os.path.join(directory, name)
        if not os.path.isfile(path):
            raise Mistake("%s is missing; %s" % (path, remedy))
        if digest(path) != expected:
            raise Mistake("%s has changed since it was written; %s" % (path, remedy))


def require_whole(bundle):
    """Compares a bundle with its `SHA256SUMS`, which bundles of older versions lack."""
    path = os.path.join(bundle, "SHA256SUMS")
    if os.path.exists(path):
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = [x.rstrip("\n").partition("  ") for x in file if not x.startswith("#")]
        remedy = "copy the bundle again, or remove the file's line from SHA256SUMS if it is right"
        require_same(bundle, [(name, value) for value, _, name in lines], remedy)


def read_json(path):
    """Reads a JSON object."""
    try:
        with open(path, "rb") as file:
            value = json.loads(file.read().decode())
    except (OSError, ValueError, RecursionError) as error:
        raise Mistake("%s cannot be read: %s" % (path, error))
    if not isinstance(value, dict):
        raise Mistake("%s cannot be read: it holds no JSON object" % path)
    return value


def read_arrays(path, names=()):
    """Reads an .npz file and checks that it has arrays with these names."""
    try:
        with zipfile.ZipFile(path) as members:
            damaged = members.testzip()  # NumPy does not verify an entire member
        with np.load(path) as arrays:
            found = {name: arrays[name] for name in arrays.files}
    except Exception as error:  # of many types
        raise Mistake("%s cannot be read: %s" % (path, one_line(error)))
    lost = [damaged] if damaged else sorted(set(names) - set(found))
    if lost:
        raise Mistake("%s cannot be read: %s is damaged or missing" % (path, lost[0]))
    return found


def write_text(path, text):
    """Writes a file atomically: a reader sees the old or the new one, which is on the disk."""
    with open(path + ".partial", "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(path + ".partial", path)


def sync(path):
    """Waits until a file is on the disk."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())


_OWN = re.compile(r"(manifest|window|checkpoint)-\d+[._]|lock$|(metrics\.jsonl|results\.json)\b")


def require_own(directory):
    """Rejects a directory whose `metrics.jsonl` or `results.json` is not from a bundle."""
    names = set(os.listdir(directory))
    has_run = "checkpoint" in names or saved_steps(directory)
    others = sorted(name for name in names if not _OWN.match(name))
    if names & {"metrics.jsonl", "results.json"} and others and not has_run:
        text = "--output %s holds no run of a bundle, but %s; allowed: another directory"
        raise Mistake(text % (directory, others[0]))


@contextlib.contextmanager
def alone(directory):
    """Holds a lock, so that only one process trains in an output directory."""
    with open(os.path.join(directory, "lock"), "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Mistake("--output %s is in use: another process trains there" % directory)
        except OSError:
            pass  # some network file systems have no locks
        yield


def one_line(error):
    return " ".join(str(error).split())[:200]


# The input of a step.


def permuted(seed, part, size, counter):
    """Returns the examples numbered `counter` in an endless sequence of shuffled epochs."""
    epochs, offsets = np.divmod(np.asarray(counter, np.int64), size)
    orders = {
        e: np.random.RandomState([seed, part, e]).permutation(size) for e in np.unique(epochs)
    }
    return np.array([orders[e][o] for e, o in zip(epochs, offsets)], np.int64)


def weak_view(images, random, flip, pad, mode):
    """Flips with probability `flip`, then shifts by up to `pad` pixels."""
    count, height, width, _ = images.shape
    flipped = random.uniform(size=count) < flip
    images = np.where(flipped[:, None, None, None], images[:, :, ::-1], images)
    offsets = random.randint(0, 2 * pad + 1, (count, 2))
    padded = np.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)), mode)
    return np.stack([p[y : y + height, x : x + width] for p, (y, x) in zip(padded, offsets)])


def draw(random, kind, size, beta=None):
    """Draws random numbers as specified in the manifest."""
    if kind == "larger_beta":  # the larger of λ and 1 - λ
        lam = random.beta(beta, beta, size)
        return np.maximum(lam, 1 - lam).astype(np.float32)
    if kind == "permutation":
        return random.permutation(size).astype(np.int32)
    raise Mistake("manifest.json asks for the distribution %r, which is unknown" % kind)


class Sampler:
    """`batch(step)` returns the values for the graph's `in/*`, a function of (seed, step)."""

    def __init__(self, manifest, data, bundle):
        self._manifest, self._data = manifest, data
        self._config = manifest["config"]
        self._strong = _StrongViews(bundle) if manifest["strong"] else None

    def batch(self, step):
        manifest, config, data = self._manifest, self._config, self._data
        random = np.random.RandomState([config["seed"], 2, step])
        size = config["batch_size"]
        labeled = self._examples(0, data["labeled"], step, size)
        feeds = {
            "in/labeled": self._view(manifest["labeled_view"], data["images"][labeled], random),
            "in/labels": data["labels"][labeled],
            "in/step": np.int32(step),
        }
        if manifest["views"]:
            chosen = self._examples(1, data["unlabeled"], step, size * config["uratio"])
            feeds["in/hidden"] = data["labels"][chosen]
            for i, view in enumerate(manifest["views"]):
                feeds["in/view%d" % i] = self._view(view, data["images"][chosen], random)
        for name, distribution in sorted(manifest["noise"].items()):
            feeds[name] = draw(random, **distribution)
        return {name: value for name, value in feeds.items() if name in manifest["inputs"]}

    def _examples(self, part, indices, step, size):
        counter = step * size + np.arange(size)
        return indices[permuted(self._config["seed"], part, len(indices), counter)]

    def _view(self, name, images, random):
        if name == "none":
            return images
        strong = self._manifest["strong"]
        if name == "weak" or strong["weak_first"]:
            images = weak_view(images, random, **self._manifest["weak"])
        if name == "weak":
            return images
        uniform = random.uniform(size=(len(images), strong["numbers"])).astype(np.float32)
        return self._strong(images, np.minimum(uniform, np.float32(1 - 2.0**-24)))


class _StrongViews:
    """Computes strong views with the second graph, always on the host's CPU."""

    def __init__(self, bundle):
        graph = tf.Graph()
        with graph.as_default():
            tf.import_graph_def(read_graph(bundle, "views.pb"), name="")
        self._session = tf1.Session(graph=graph, config=tf1.ConfigProto(device_count={"GPU": 0}))

    def __call__(self, images, uniform):
        feeds = {"in/images:0": images, "in/uniform:0": uniform}
        return self._session.run("out/images:0", feeds)


class Prefetch:
    """Prepares the batches `start` to `stop` - 1 in a thread while steps run."""

    def __init__(self, make, start, stop, ahead=2):
        self._ready = queue.Queue(ahead)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._fill, args=(make, start, stop), daemon=True)
        self._thread.start()

    def _fill(self, make, start, stop):
        for step in range(start, stop):
            try:
                item = make(step)
            except BaseException as error:  # raised again when the batch is requested
                item = error
            while not self._closed.is_set():
                try:
                    self._ready.put(item, timeout=0.1)
                    break
                except queue.Full:
                    pass
            if self._closed.is_set() or isinstance(item, BaseException):
                return

    def next(self):
        item = self._ready.get()
        if isinstance(item, BaseException):
            raise item
        return item

    def close(self):
        self._closed.set()
        self._thread.join()


def learning_rate(step, name, lr, steps, steps_per_epoch, warmup_epochs, decay_epochs):
    """The schedules of ssljax/training/optim.py."""
    if name == "constant":
        return lr
    if name == "cosine":
        return lr * math.cos(7 * math.pi / 16 * min(step / steps, 1.0))
    epoch = step / steps_per_epoch
    if epoch < warmup_epochs:
        return lr * epoch / warmup_epochs
    if len(decay_epochs) == 1:
        return lr * 0.1 ** math.floor(epoch / decay_epochs[0])
    return lr * 0.1 ** sum(epoch > end for end in decay_epochs)


# Updates.


class Updates(tf1.train.Optimizer):
    """All updates of a step, in order: weights, statistics, kernel decay, averages.

    All of them are in `apply_gradients`, so that a step skipped by a loss scale changes nothing.
    """

    def __init__(self, inner, variables, manifest, lr, new_stats, applied):
        super(Updates, self).__init__(use_locking=False, name="Updates")
        self._inner, self._variables, self._lr = inner, variables, lr
        self._new_stats, self._applied = new_stats, applied
        self._knobs, self._ema_decay = manifest["optimizer"], manifest["config"]["ema_decay"]

    def create_slots(self, weights):
        """Creates the optimizer's variables, which cannot be created inside a conditional."""
        self._inner._create_slots(weights)

    def compute_gradients(self, loss, var_list=None, **options):
        return self._inner.compute_gradients(loss, var_list=var_list, **options)

    def apply_gradients(self, grads_and_vars, global_step=None, name=None):
        l2 = {self._variables[key].name: rate for key, rate in self._knobs["l2"].items()}
        gradients = [(g + l2[v.name] * v if v.name in l2 else g, v) for g, v in grads_and_vars]
        done = self._inner.apply_gradients(gradients)
        for stage in (self._statistics, self._decayed, self._averages):
            with tf.control_dependencies([done]):
                done = tf.group(*stage())
        return done

    def _statistics(self):
        changed = [self._variables[key].assign(x) for key, x in sorted(self._new_stats.items())]
        return changed + [self._applied.assign_add(1)]

    def _decayed(self):
        return [
            self._variables[key].assign(self._variables[key].read_value() * (1 - rate * self._lr))
            for key, rate in sorted(self._knobs["decay"].items())
        ]

    def _averages(self):
        return [self._average(key) for key in sorted(self._variables) if key.startswith("ema")]

    def _average(self, key):
        decay = self._ema_decay
        kind, _, rest = key.partition("/")
        source = self._variables[{"ema": "param/", "ema_stat": "stat/"}[kind] + rest]
        average = self._variables[key]
        return average.assign(decay * average.read_value() + (1 - decay) * source.read_value())


class FixedScale:
    """A constant loss scale."""

    def __init__(self, value):
        self.value = tf.constant(float(value), tf.float32)

    def update(self, finite):
        return tf.no_op()


class DynamicScale:
    """The rules of `ExponentialUpdateLossScaleManager`: good steps do not reset the bad ones."""

    def __init__(self, start=2.0**32, incr_every=1000, decr_every=2):
        self._incr_every, self._decr_every = incr_every, decr_every
        self._scale = tf1.get_variable("loss_scale", initializer=np.float32(start), trainable=False)
        self._good, self._bad = (
            tf1.get_variable(name, initializer=np.int32(0), trainable=False)
            for name in ("good_steps", "bad_steps")
        )
        self.value = self._scale.read_value()

    def update(self, finite):
        """Doubles the scale after enough good steps; halves it, to 1 at least, after bad ones."""

        def change(scale):
            return tf.group(self._scale.assign(scale), self._good.assign(0), self._bad.assign(0))

        def good():
            scale = self._scale.read_value()
            doubled = tf.where(tf1.is_finite(scale * 2), scale * 2, scale)
            return tf.cond(
                self._good.read_value() + 1 >= self._incr_every,
                lambda: change(doubled),
                lambda: tf.group(self._good.assign_add(1)),
            )

        def bad():
            return tf.cond(
                self._bad.read_value() + 1 >= self._decr_every,
                lambda: change(tf.maximum(self._scale.read_value() * 0.5, 1.0)),
                lambda: tf.group(self._bad.assign_add(1), self._good.assign(0)),
            )

        return tf.cond(finite, good, bad)


class ScaledLoss(tf1.train.Optimizer):
    """Skips steps whose gradients are not finite; for verification on a CPU.

    On an NPU, arithmetic may saturate, which only its status registers show. There, npu_bridge's
    `NPULossScaleOptimizer` is used instead.
    """

    def __init__(self, inner, scale):
        super(ScaledLoss, self).__init__(use_locking=False, name="ScaledLoss")
        self._inner, self._scale = inner, scale

    def compute_gradients(self, loss, var_list=None, **options):
        pairs = self._inner.compute_gradients(loss * self._scale.value, var_list, **options)
        return [(g / self._scale.value, v) for g, v in pairs]

    def apply_gradients(self, grads_and_vars, global_step=None, name=None):
        finite = tf.reduce_all(
            tf.stack([tf.reduce_all(tf1.is_finite(g)) for g, _ in grads_and_vars])
        )
        applied = tf.cond(
            finite, lambda: self._inner.apply_gradients(grads_and_vars), lambda: tf.no_op()
        )
        return tf.group(applied, self._scale.update(finite))


def scaled(updates, loss_scale, device, dynamic=DynamicScale):
    """Returns `updates` with the loss scale chosen by --loss_scale.

    Args:
      dynamic: for tests: creates the dynamic scale on a CPU.
    """
    if loss_scale == -1:
        return updates
    if device == "cpu":
        return ScaledLoss(updates, dynamic() if loss_scale == 0 else FixedScale(loss_scale))
    import npu_bridge.npu_init as npu

    if loss_scale == 0:
        manager = npu.ExponentialUpdateLossScaleManager(
            init_loss_scale=2**32,
            incr_every_n_steps=1000,
            decr_every_n_nan_or_inf=2,
            decr_ratio=0.5,
        )
    else:
        manager = npu.FixedLossScaleManager(loss_scale=loss_scale)
    return npu.NPULossScaleOptimizer(updates, manager)


# The graph.


class Model:
    """Variables, the training step and evaluation, in one graph.

    Args:
      dynamic: for tests, see `scaled`.
    """

    def __init__(self, bundle, manifest, loss_scale=-1, device="cpu", dynamic=DynamicScale):
        self.manifest = manifest
        self.graph = tf.Graph()
        with self.graph.as_default():
            self.variables = {
                name: tf1.get_variable(
                    name,
                    initializer=value,
                    trainable=name.startswith("param/"),
                    use_resource=False,
                )
                for name, value in sorted(read_arrays(os.path.join(bundle, "weights.npz")).items())
            }
            self.step = tf1.get_variable(
                "step", initializer=np.int64(manifest["first_step"]), trainable=False
            )
            self.applied = tf1.get_variable(
                "applied_steps", initializer=np.int64(0), trainable=False
            )
            self.lr = tf1.placeholder(tf.float32, [], name="learning_rate")
            self._build_training(bundle, loss_scale, device, dynamic)
            self._build_evaluation(bundle)
            self.saver = tf1.train.Saver(max_to_keep=0)  # `save` removes old checkpoints
            self.initialize = tf1.global_variables_initializer()
        self.graph.finalize()

    def _build_training(self, bundle, loss_scale, device, dynamic):
        manifest, variables = self.manifest, self.variables
        self.inputs = {
            name: tf1.placeholder(spec["dtype"], spec["shape"], name=name)
            for name, spec in manifest["inputs"].items()
            if name.startswith("in/")
        }
        given = {
            name: self.inputs[name] if name in self.inputs else variables[name]
            for name in manifest["inputs"]
        }
        stats = sorted(name for name in variables if name.startswith("stat/"))
        parts = ["total", "count"]
        names = (
            ["out/loss"]
            + ["out/" + name for name in stats]
            + ["out/metric/%s/%s" % (m, part) for m in manifest["metrics"] for part in parts]
        )
        tensors = import_graph(bundle, "train.pb", given, names)
        self.loss = tensors["out/loss"]
        self.new_stats = {name: tensors["out/" + name] for name in stats}
        self.metrics = {
            m: tuple(tensors["out/metric/%s/%s" % (m, part)] for part in parts)
            for m in manifest["metrics"]
        }
        self.weights = [variables[n] for n in sorted(variables) if n.startswith("param/")]
        knobs = manifest["optimizer"]
        if knobs["name"] == "adam":
            inner = tf1.train.AdamOptimizer(self.lr)
        else:
            inner = tf1.train.MomentumOptimizer(self.lr, knobs["momentum"], use_nesterov=True)
        updates = Updates(inner, variables, manifest, self.lr, self.new_stats, self.applied)
        updates.create_slots(self.weights)
        optimizer = scaled(updates, loss_scale, device, dynamic)
        pairs = optimizer.compute_gradients(self.loss, var_list=self.weights)
        self.gradients = {v.op.name: g for g, v in pairs}
        # Weights that the loss does not depend on have no gradient.
        pairs = [(tf.zeros_like(v) if g is None else g, v) for g, v in pairs]
        # Everything computed from the old weights, before any of them changes.
        computed = [self.loss, *self.new_stats.values()]
        computed += [x for pair in self.metrics.values() for x in pair]
        with tf.control_dependencies(computed + [g for g, _ in pairs]):
            pairs = [(tf.identity(g), v) for g, v in pairs]
        with tf.control_dependencies([optimizer.apply_gradients(pairs)]):
            self.train = self.step.assign_add(1)

    def _build_evaluation(self, bundle):
        config, variables = self.manifest["config"], self.variables
        shape = [config["eval_batch_size"]] + list(self.manifest["image_shape"])
        self.images = tf1.placeholder(tf.uint8, shape, name="eval_images")
        self.logits = {}
        for kind in ("raw", "ema"):
            given = {"in/images": self.images}
            for name in variables:
                prefix, _, rest = name.partition("/")
                if prefix not in ("param", "stat"):
                    continue
                averaged = {"param": "ema/", "stat": "ema_stat/"}[prefix] + rest
                given[name] = variables[
                    averaged if kind == "ema" and averaged in variables else name
                ]
            self.logits[kind] = import_graph(bundle, "eval.pb", given, ["out/logits"])["out/logits"]


def read_graph(bundle, name):
    path = os.path.join(bundle, name)
    graph_def = tf1.GraphDef()
    try:
        with open(path, "rb") as file:
            graph_def.ParseFromString(file.read())
    except Exception as error:  # of many types
        raise Mistake("%s cannot be read: %s" % (path, one_line(error)))
    return graph_def


def import_graph(bundle, name, given, outputs):
    """Imports a graph; its placeholders become the tensors and variables `given`."""
    graph_def = read_graph(bundle, name)
    placeholders = {node.name for node in graph_def.node if node.op == "Placeholder"}
    mapped = {
        key + ":0": tf.convert_to_tensor(value)
        for key, value in given.items()
        if key in placeholders
    }
    returned = tf.import_graph_def(
        graph_def, mapped, [key + ":0" for key in outputs], name=name.split(".")[0]
    )
    return dict(zip(outputs, returned))


def session_config(options):
    """Returns the session's configuration; on an NPU, all of it is required.

    `NpuOptimizer` is the graph rewriter of npu_bridge; stock TensorFlow ignores it silently.
    `use_off_line`: the entire graph runs on the NPU. `precision_mode`: precision of its arithmetic.
    `dynamic_input` and `dynamic_graph_execute_mode`: the published port set them; here all shapes
    are fixed, so they are off unless --dynamic_input sets them. TensorFlow's remapping and memory
    optimisation must be off as well.
    """
    config = tf1.ConfigProto(allow_soft_placement=True)
    if options.device != "npu":
        return config
    rewriter = config.graph_options.rewrite_options
    off = type(rewriter).OFF
    custom = rewriter.custom_optimizers.add()
    custom.name = "NpuOptimizer"
    custom.parameter_map["use_off_line"].b = True
    custom.parameter_map["precision_mode"].s = tf.compat.as_bytes(options.precision)
    if options.dynamic_input:
        custom.parameter_map["dynamic_input"].b = True
        custom.parameter_map["dynamic_graph_execute_mode"].s = tf.compat.as_bytes("lazy_recompile")
    rewriter.remapping = off
    rewriter.memory_optimization = off
    return config


# The run.


def summarized(sums, labels):
    """Converts sums over some steps to means, as ssljax/run/metrics.py does.

    `labels` are those of the labelled images. Of per-class sums, only the rarest and the most
    frequent class are reported.
    """
    row = {}
    for name, (total, count) in sorted(sums.items()):
        if name == "guess/classes":
            row["guess/class_entropy"] = entropy(np.asarray(total, np.float64) / count)
        elif np.ndim(count):
            guesses = sums["guess/classes"][0]
            counts = np.bincount(labels, minlength=len(guesses))
            order = [c for c in np.lexsort((guesses, counts)) if counts[c]]
            for kind, c in (("rarest", order[0]), ("frequent", order[-1])):
                row["%s_%s" % (name.replace("class_", ""), kind)] = mean(total[c], count[c])
        else:
            row[name] = mean(total, count)
    return row


def mean(total, count):
    return float(total) / float(count) if count else None


def entropy(shares):
    """Returns the entropy in nats of class frequencies `shares`."""
    return float(-np.sum(shares * np.log(np.maximum(shares, 1e-12))))


def evaluate(session, model, images, labels):
    """Computes accuracy and cross-entropy of raw and averaged weights, counting each image once."""
    size = model.images.shape.as_list()[0]
    logits = {kind: [] for kind in model.logits}
    for i in range(0, len(images), size):
        part = images[i : i + size]
        full = np.concatenate([part, np.zeros((size - len(part),) + part.shape[1:], part.dtype)])
        for kind, values in session.run(model.logits, {model.images: full}).items():
            logits[kind].append(values[: len(part)])
    scores = {}
    for kind, parts in logits.items():
        x = np.concatenate(parts).astype(np.float64)
        true = x[np.arange(len(x)), labels]
        top = x.max(axis=1)
        log_sum = top + np.log(np.exp(x - top[:, None]).sum(axis=1))
        scores["accuracy_" + kind] = float(np.mean(x.argmax(axis=1) == labels))
        scores["loss_" + kind] = float(np.mean(log_sum - true))
        shares = np.bincount(x.argmax(axis=1), minlength=x.shape[1]) / float(len(x))
        scores["class_entropy_" + kind] = entropy(shares)
        if kind == "ema":
            scores.update(balanced(labels, x.argmax(axis=1)))
        if x.shape[1] > 10:
            rank = np.sum(x > true[:, None], axis=1)
            scores["accuracy_top5_" + kind] = float(np.mean(rank < 5))
    return scores


def balanced(labels, predicted):
    """Computes mean recall and F1 of the classes with images, as ssljax/run/evaluate.py does."""
    recalls, f1s = [], []
    for c in np.unique(labels):
        images, guesses = np.sum(labels == c), np.sum(predicted == c)
        right = float(np.sum((labels == c) & (predicted == c)))
        recalls.append(right / images)
        f1s.append(2 * right / (images + guesses))
    return {
        "balanced_accuracy_ema": float(np.mean(recalls)), "macro_f1_ema": float(np.mean(f1s))
    }  # fmt: skip


def evaluate_all(session, model, data):
    """Returns scores on validation and test images, with ssljax's names."""
    parts = {
        "valid": (data["images"][data["valid"]], data["labels"][data["valid"]]),
        "test": (data["test_images"], data["test_labels"]),
    }
    return {
        "%s/%s" % (part, name): value
        for part, (images, labels) in parts.items()
        if len(images)
        for name, value in evaluate(session, model, images, labels).items()
    }


def results(rows):
    """Returns `results.json`: the median accuracy of the last 20 evaluations, averaged weights."""
    part = "test" if any("test/accuracy_ema" in row for row in rows) else "validation"
    key = "test/accuracy_ema" if part == "test" else "valid/accuracy_ema"
    evaluations = [row for row in rows if key in row]
    if not evaluations:
        return {"step": rows[-1]["step"] if rows else 0, "headline": {}, "last": {}}
    last, counted = evaluations[-1], evaluations[-20:]
    headline = {"weights": "ema", "evaluations": len(counted)}
    for name in ("accuracy", "balanced_accuracy", "macro_f1"):
        values = [row.get(key.replace("accuracy", name)) for row in counted]
        if None not in values:  # rows of older runners only have the accuracy
            headline[part + "_" + name] = round(float(np.median(values)), 6)
    return {
        "step": last["step"],
        "headline": headline,
        "last": {k: v for k, v in last.items() if k.startswith(("test/", "valid/"))},
    }


class Log:
    """Writes `metrics.jsonl`; rows after `step`, left by an interrupted run, are dropped.

    Args:
      recorded: `size` and `sha256` of the rows, as recorded in the checkpoint of `step`; None: it
        was written by an older version.
    """

    def __init__(self, directory, step, recorded):
        self.path = os.path.join(directory, "metrics.jsonl")
        content = b""
        if os.path.exists(self.path):
            with open(self.path, "rb") as file:
                content = file.read()
        elif recorded and recorded["size"]:
            print("warning: %s is missing: the rows up to step %d are lost" % (self.path, step))
            recorded = None
        if recorded:
            content = content[: recorded["size"]]
            if hashlib.sha256(content).hexdigest() != recorded["sha256"]:
                raise Mistake(
                    "%s has changed or lost rows since step %d was saved; restore it, or move it "
                    "away to continue without its rows" % (self.path, step)
                )
        lines = content.split(b"\n")[:-1] if step else []
        self.rows = [self._row(number, line) for number, line in enumerate(lines, 1)]
        self.rows = [row for row in self.rows if row["step"] <= step]
        text = "".join(json.dumps(row) + "\n" for row in self.rows)
        write_text(self.path, text)
        self._size, self._sha256 = len(text), hashlib.sha256(text.encode())

    def _row(self, number, line):
        try:
            row = json.loads(line.decode())
            if isinstance(row["step"], int):
                return row
        except (ValueError, KeyError, TypeError, RecursionError):
            pass
        raise Mistake("%s cannot be read in line %d; restore it" % (self.path, number))

    def write(self, row):
        row = {k: v if v is None or math.isfinite(v) else None for k, v in row.items()}
        line = json.dumps(row) + "\n"
        with open(self.path, "a") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())  # must precede the checkpoint that refers to it
        self.rows.append(row)
        self._size += len(line)
        self._sha256.update(line.encode())

    def written(self):
        """Returns size and hash of the rows so far, which a checkpoint records."""
        return {"size": self._size, "sha256": self._sha256.hexdigest()}


_OF_A_STEP = re.compile(r"(?:manifest|window|checkpoint)-(\d+)\.")


@contextlib.contextmanager
def current(directory):
    """Changes the current directory, because TensorFlow treats brackets in paths as patterns."""
    before = os.open(".", os.O_RDONLY)
    os.chdir(directory)
    try:
        yield
    finally:
        os.fchdir(before)
        os.close(before)


def saved_steps(directory):
    """Returns the steps that have a complete checkpoint, the newest first."""
    found = [re.match(r"manifest-(\d+)\.json$", name) for name in os.listdir(directory)]
    return sorted((int(match.group(1)) for match in found if match), reverse=True)


def save(session, model, directory, step, sums, log):
    """Saves a checkpoint: all variables, the sums of metrics not logged yet and, last, their
    checksums, which make it valid."""
    plain = {k: [np.asarray(x).tolist() for x in pair] for k, pair in sums.items()}
    write_text(os.path.join(directory, "window-%d.json" % step), json.dumps(plain))
    with current(directory):
        model.saver.save(session, "checkpoint", global_step=step)
    parts = ("window-%d.json" % step, "checkpoint-%d." % step)
    paths = {n: os.path.join(directory, n) for n in os.listdir(directory) if n.startswith(parts)}
    for path in paths.values():
        sync(path)
    manifest = {
        "sha256": {name: digest(path) for name, path in sorted(paths.items())},
        "metrics.jsonl": log.written(),
    }
    write_text(os.path.join(directory, "manifest-%d.json" % step), json.dumps(manifest, indent=1))
    kept = saved_steps(directory)[: model.manifest["config"]["keep_checkpoints"] + 1]
    # Manifests are removed first: a checkpoint with a manifest is complete.
    for name in sorted(os.listdir(directory), key=lambda name: not name.startswith("manifest")):
        match = _OF_A_STEP.match(name)
        if match and int(match.group(1)) not in kept:
            os.remove(os.path.join(directory, name))
        if re.match(r"checkpoint-\d+_temp", name):  # left by a killed save
            shutil.rmtree(os.path.join(directory, name), ignore_errors=True)


def restore(session, model, directory):
    """Restores the newest checkpoint, if any: (step, sums, its record of `metrics.jsonl`)."""
    steps = saved_steps(directory)
    try:
        state = tf1.train.get_checkpoint_state(directory)
    except ValueError:
        state = None
    if steps:
        newest, recorded = "checkpoint-%d" % steps[0], _verified(directory, *steps[:2])
    elif state is not None and state.model_checkpoint_path:
        # From a version without manifests. The path is that on the machine that wrote it.
        newest, recorded = os.path.basename(state.model_checkpoint_path), None
    elif os.path.exists(os.path.join(directory, "checkpoint")):
        raise Mistake("%s cannot be read" % os.path.join(directory, "checkpoint"))
    else:
        session.run(model.initialize)
        return int(session.run(model.step)), {}, None
    saver, path = model.saver.saver_def, os.path.join(directory, newest)
    try:
        with current(directory):
            session.run(saver.restore_op_name, {saver.filename_tensor_name: newest})
    except tf.errors.OpError as error:
        raise Mistake("%s cannot be read: %s" % (path, one_line(error)))
    step = int(session.run(model.step))
    sums = read_json(os.path.join(directory, "window-%d.json" % step))
    return step, {k: [np.asarray(x) for x in pair] for k, pair in sums.items()}, recorded


def _verified(directory, step, before=None):
    """Compares a checkpoint with its checksums; returns its record of `metrics.jsonl`."""
    path = os.path.join(directory, "manifest-%d.json" % step)
    manifest = read_json(path)
    remedy = "restore it"
    if before is not None:
        remedy += ", or remove %s to continue from step %d" % (path, before)
    try:
        sums, recorded = manifest["sha256"].items(), manifest["metrics.jsonl"]
        known = isinstance(recorded["size"], int) and isinstance(recorded["sha256"], str)
    except (KeyError, TypeError, AttributeError):
        known = False
    if not known:
        raise Mistake("%s is damaged; %s" % (path, remedy))
    require_same(directory, sums, remedy)
    return recorded


class StopSignal:
    """Records SIGINT, SIGTERM and, except under nohup, SIGHUP; the loop checks after each step."""

    def __init__(self):
        self.number = None
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                    signal.signal(number, self._note)

    def _note(self, number, frame):
        self.number = number


def run_steps(session, model, sampler, data, directory, stop, copy_out=lambda: None):
    """Trains to the end; returns the content of `results.json`.

    Args:
      stop: has a non-zero `number` once the run must save and stop.
      copy_out: called after each evaluation.
    """
    manifest, config = model.manifest, model.manifest["config"]
    step, sums, recorded = restore(session, model, directory)
    log = Log(directory, step, recorded)
    end, logged, began = config["num_steps"], step, time.time()
    per_step = config["batch_size"] * (1 + config["uratio"] * len(manifest["views"]))
    batches = Prefetch(sampler.batch, step, end)
    try:
        while step < end:
            lr = learning_rate(step, **manifest["schedule"])
            feeds = {model.inputs[name]: x for name, x in batches.next().items()}
            feeds[model.lr] = lr
            _, found = session.run([model.train, model.metrics], feeds)
            found = dict(found, learning_rate=(lr, 1.0))
            for name, pair in found.items():
                old = sums.get(name, (0, 0))
                sums[name] = [np.asarray(a, np.float64) + b for a, b in zip(pair, old)]
            step += 1
            evaluated = step % config["eval_every"] == 0 or step == end
            if evaluated or step % config["log_every"] == 0:
                labels = data["labels"][data["labeled"]]
                row = dict({"step": step}, **summarized(sums, labels))
                row["applied_steps"] = int(session.run(model.applied))
                row["images_per_second"] = per_step * (step - logged) / (time.time() - began)
                sums = {}
                if evaluated:
                    row.update(evaluate_all(session, model, data))
                    _require_finite(session, model, step)
                log.write(row)
                if evaluated:
                    save(session, model, directory, step, sums, log)
                    copy_out()
                print(described(row), flush=True)
                logged, began = step, time.time()
            if stop.number and step < end:
                save(session, model, directory, step, sums, log)
                copy_out()
                name = signal.Signals(stop.number).name
                raise Interrupted("%s: saved after step %d" % (name, step))
    finally:
        batches.close()
    record = results(log.rows)
    write_text(os.path.join(directory, "results.json"), json.dumps(record, indent=2) + "\n")
    return record


def _require_finite(session, model, step):
    for name, value in session.run(model.variables).items():
        if not np.all(np.isfinite(value)):
            raise Failure("%s is not finite after step %d; nothing was saved" % (name, step))


def described(row):
    scores = ", ".join(
        "%s %.2f %%" % (key, 100 * row[key])
        for key in ("test/accuracy_ema", "test/accuracy_raw", "valid/accuracy_ema")
        if key in row
    )
    loss = row["loss/total"]
    return "step %d: loss %s%s" % (
        row["step"], "none" if loss is None else "%.4f" % loss, ", " + scores if scores else ""
    )  # fmt: skip


# The command.


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    here = os.path.dirname(os.path.abspath(__file__))
    parser.add_argument("--bundle", default=here, help="directory with manifest.json")
    parser.add_argument("--output", default=None, help="default: <bundle>/run")
    parser.add_argument("--device", choices=("npu", "cpu"), default="npu")
    parser.add_argument("--precision", choices=PRECISIONS, default="force_fp32")
    parser.add_argument(
        "--loss_scale", type=float, default=-1,
        help="0: dynamic, from 2^32; 1 and above: fixed; -1: off",
    )  # fmt: skip
    parser.add_argument(
        "--dynamic_input", action="store_true", help="as the published port; not needed here"
    )
    parser.add_argument("--data_url", default=None, help="a copy of the bundle to fetch first")
    parser.add_argument("--train_url", default=None, help="where the output is copied to")
    options = parser.parse_args(arguments)
    if options.loss_scale not in (0, -1) and not options.loss_scale >= 1:
        raise Mistake("--loss_scale is %g; allowed: 0, -1, or from 1 up" % options.loss_scale)
    if options.device == "npu":
        try:
            import npu_bridge.npu_init  # noqa: F401
        except ImportError as error:
            raise Mistake("--device=npu needs npu_bridge (%s); --device=cpu verifies" % error)
    options.output = options.output or os.path.join(options.bundle, "run")
    return options


def copy(source, target):
    """Copies a directory, from or to ModelArts' storage if moxing is installed."""
    try:
        import moxing
    except ImportError:
        os.makedirs(target, exist_ok=True)
        # Manifests are copied last: a checkpoint with a manifest is complete.
        for name in sorted(os.listdir(source), key=lambda name: name.startswith("manifest-")):
            path, there = os.path.join(source, name), os.path.join(target, name)
            if os.path.isdir(path):
                copy(path, there)
            elif name != "lock" and not name.endswith(".partial"):
                shutil.copy(path, there + ".partial")
                os.replace(there + ".partial", there)
    else:
        moxing.file.copy_parallel(source, target)


def read_manifest(bundle):
    path = os.path.join(bundle, "manifest.json")
    manifest = read_json(path)
    if manifest.get("format") != FORMAT:
        raise Mistake("%s has format %s, not %d" % (path, manifest.get("format"), FORMAT))
    return manifest


DATA = ("images", "labels", "labeled", "unlabeled", "valid", "test_images", "test_labels")


def train(options, stop):
    """Runs the training that the arguments describe, up to `results.json`."""
    if options.data_url:
        try:
            copy(options.data_url, options.bundle)
        except Exception as error:  # each storage backend raises its own types
            raise Mistake("--data_url %s cannot be read: %s" % (options.data_url, one_line(error)))
    manifest = read_manifest(options.bundle)
    require_whole(options.bundle)
    data = read_arrays(os.path.join(options.bundle, "data.npz"), DATA)
    os.makedirs(options.output, exist_ok=True)

    def copy_out():
        """Copies the output; logs and returns the reason if that fails, and the run continues."""
        try:
            if options.train_url:
                copy(options.output, options.train_url)
        except Exception as error:  # each storage backend raises its own types
            text = "--train_url %s cannot be written: %s" % (options.train_url, one_line(error))
            print("warning: %s; all files are in %s" % (text, options.output), flush=True)
            return text

    with alone(options.output):
        require_own(options.output)
        model = Model(options.bundle, manifest, options.loss_scale, options.device)
        sampler = Sampler(manifest, data, options.bundle)
        with tf1.Session(graph=model.graph, config=session_config(options)) as session:
            record = run_steps(session, model, sampler, data, options.output, stop, copy_out)
        problem = copy_out()
    print_headline(record)
    if problem:
        raise Failure(problem)


def print_headline(record):
    if not record["headline"]:
        print("headline: nothing was evaluated")
        return
    known = record["headline"]
    (part,) = [x for x in ("test_accuracy", "validation_accuracy") if x in known]
    print(
        "headline: %s %.2f %% (EMA weights, median of the last %d evaluations)"
        % (
            part.replace("_", " "),
            100 * record["headline"][part],
            record["headline"]["evaluations"],
        )
    )


class Lasting(io.FileIO):
    """A standard stream that discards what it cannot write, so that a run outlives its reader."""

    def write(self, data):
        try:
            while True:
                count = io.FileIO.write(self, data)
                if count is not None:
                    return count
                select.select([], [self], [])  # the pipe's reader is slow
        except OSError as error:
            if error.errno in (errno.EPIPE, errno.EIO):  # permanent, also for TensorFlow
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self.fileno())
                os.close(nowhere)
            return len(data)


def outlive_readers():
    """Makes standard streams survive a closed pipe, a lost terminal and a full disk."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # closed, as in a daemon; otherwise the next file would get this number
            os.open(os.devnull, os.O_RDWR)
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = io.BufferedWriter(Lasting(number, "w", closefd=False))
        setattr(sys, name, io.TextIOWrapper(stream, errors="replace", line_buffering=True))


_OF_DISKS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.ESTALE)


def main(arguments=None):
    stop = StopSignal()
    try:
        train(parse(arguments), stop)
    except Mistake as error:
        print("error: %s" % error, file=sys.stderr)
        return 2
    except Failure as error:
        print("error: %s" % error, file=sys.stderr)
        return 1
    except (OSError, tf.errors.OpError) as error:
        # TensorFlow has its own errors, which quote the system's text.
        full = [text for text in map(os.strerror, _OF_DISKS) if text in str(error)]
        if not full and getattr(error, "filename", None) is None:
            raise
        text = "the output cannot be written: %s; the previous checkpoint is intact" % "".join(full)
        print("error: %s" % (text if full else error), file=sys.stderr)
        return 1
    except Interrupted as error:
        print("%s; run the same command again to continue" % error, file=sys.stderr)
        return 128 + stop.number
    return 0


if __name__ == "__main__":
    outlive_readers()
    sys.exit(main())
