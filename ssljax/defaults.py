"""Every knob, once. Recipes start from these and change what differs."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """The published CIFAR recipe's sizes and lengths; recipes fill in the method."""
    config = ml_collections.ConfigDict()

    # Data: <data set>.<seed of the labelled set>@<labelled images>-<validation images>, where the
    # data set is a function of ssljax/data/datasets.py, or tfds:<name>, folder:<path>, npz:<file>;
    # @all takes every label that no validation image has, where those are not to be labelled.
    # Long-tailed: <data set>_lt100.<seed>@<labels>+<unlabelled images of the first class>-….
    config.dataset = "digits.1@40-100"
    # Whether unlabelled images leave out the labelled ones ("exclude_labeled", MixMatch's
    # convention) or are all training images ("all", FixMatch's, whose validation images can be
    # labelled ones; "strict": all, but labelled ones are never for validation).
    config.unlabeled = "exclude_labeled"
    # Whether the labelled images are drawn in proportion to the classes' frequencies, as published
    # ("natural": of each class one before another has two), or as many of each class ("balanced").
    config.labels_per_class = "natural"
    config.data_dir = ""  # of prepared TFDS data sets; "": TFDS's own, ~/tensorflow_datasets
    config.image_size = 0  # side in pixels that folder: and tfds: images get; 0: as they are
    # A split.json that decides in place of the name's numbers, or for streams a published list of
    # labelled files.
    config.split_file = ""
    # Whether images are read from storage when they are needed, as random crops; ImageNet's always
    # are. Otherwise every device holds all of them.
    config.stream = False
    config.seed = 0  # of initial weights, batches and augmentation
    # Runs in one program on one device, of seed, seed + 1, … and labelled sets that count up alike.
    config.num_seeds = 1

    # Method and model: a function in ssljax/methods, ssljax/models, or one of your own, as
    # <module>.<name>; and its arguments, where they differ from the defaults in its signature.
    config.method = "supervised"
    config.method_args = ml_collections.ConfigDict()
    config.model = "wide_resnet"
    config.model_args = ml_collections.ConfigDict()
    # τ: the labelled loss is of logits + τ · log(share of each class among the labelled images), so
    # that rare classes count as much as frequent ones (Menon et al., 2021; there 1); 0: of logits.
    config.logit_adjustment = 0.0
    # Weights that training starts with: a run directory's averaged ones, a .safetensors or .npz
    # file, or hf://<owner>/<name>; "": random ones. A run that goes on does not read them again.
    config.init_from = ""
    config.init_from_sha256 = ""  # of these weights; others are refused. "": any; a run records it
    # Which weights are trained: all; head, the last layer; last:N, the last N blocks and what
    # follows them; or lora:R, the head and updates of rank R of attention's projections. The others
    # have no gradient, no slot of the optimizer and no average.
    config.trainable = "all"
    # Where the features of images that no view changes are kept, with trainable="head" and of
    # --mode=probe; "": in ~/.cache/ssljax/features.
    config.feature_cache = ""
    config.remat = False  # whether blocks are computed again for the gradient, to save memory
    # In how many parts, one after another, each device computes its share of the batch, to save
    # memory. The gradient is their mean; BatchNorm normalises each part on its own.
    config.microbatches = 1
    config.bfloat16 = False  # whether the network computes in bfloat16; weights are float32
    config.sync_bn = True  # BatchNorm over all devices' images; False: each device its own

    # Augmentation. weak: a function in ssljax/augment/policies.py, of labelled images and of weak
    # views; strong: one in ssljax/augment/augmentation.py (none, horizontal_flip, strong_digits,
    # randaugment, usb_randaugment, ctaugment); recipe: ranges of the last three. cifar or imagenet
    # suits the data set (usb_randaugment: cifar); or comatch of randaugment, no_color of
    # usb_randaugment, and remixmatch of ctaugment.
    config.augment = ml_collections.ConfigDict()
    config.augment.weak = "weak_digits"
    config.augment.strong = "strong_digits"
    config.augment.recipe = "cifar"

    # Sizes and lengths. Batches count images over all devices.
    config.batch_size = 64  # labelled images per step
    config.per_worker_batch_size = 0  # above 0: batch_size is this for each device
    config.uratio = 1  # unlabelled images for each labelled one
    config.num_steps = 1 << 20
    config.num_epochs = 0.0  # of labelled images; above 0: decides num_steps

    config.optimizer = _optimizer()
    config.ema_decay = 0.999  # of the weights that are evaluated
    config.ema_batch_stats = False  # whether it averages BatchNorm's statistics too

    # Watching: counted in steps.
    config.log_every = 128
    config.eval_every = 1024  # evaluate on validation and test images, and save
    config.eval_batch_size = 512
    config.keep_checkpoints = 20  # beside the newest

    # What goes wrong: ssljax/run/health.py warns of it at every evaluation, or stops the run.
    config.health = ml_collections.ConfigDict()
    config.health.stop_on = ("non_finite",)  # of non_finite, mask_rate, collapse
    config.checkpoint = ml_collections.ConfigDict()
    config.checkpoint.fallback = False  # whether to pass over a damaged checkpoint

    # Copies for machines without storage of their own, from and to any URL of fsspec; "": none.
    config.stage = ml_collections.ConfigDict()
    config.stage.data_url = ""  # directory that is copied to data_dir before
    config.stage.train_url = ""  # where the run directory is copied at its end, or failure

    # Several processes; on TPU pods and under SLURM or Open MPI nothing need be said.
    config.distributed = ml_collections.ConfigDict()
    config.distributed.coordinator = ""  # host:port of process 0; "": one process
    config.distributed.num_processes = 0
    config.distributed.process_id = 0  # this one's, from 0
    config.distributed.auto = True  # whether TPU pods, SLURM and Open MPI are asked for these

    # The machine.
    config.compilation_cache = ""  # directory of compiled programs, for faster starts; "": none
    config.steps_per_run = 64  # steps in one call on an accelerator; on CPU always 1
    # Devices of one thread each, when there is no accelerator; 0: one per core, or as many as
    # divide batch_size, and with per-device statistics or batches, or several processes, one in
    # all.
    config.cpu_devices = 0
    return lock(config)


def _optimizer() -> ml_collections.ConfigDict:
    """The knobs of updates."""
    knobs = ml_collections.ConfigDict()
    # adam: kernels shrink by weight_decay · lr after each step (MixMatch).
    # sgd: Nesterov momentum; weight_decay · ½ Σ kernels² is part of the loss (FixMatch).
    # keras_sgd: as sgd, with weight_decay · Σ w² over kernels and biases of dense layers.
    # adamw: kernels shrink by weight_decay · lr, as the weights of vision transformers do (USB).
    knobs.name = "adam"
    knobs.lr = 0.002
    knobs.lr_batch_size = 0  # batch size that lr is for, in proportion; 0: any
    # Or cosine: lr · cos(cosine_level · πk / 16K); cosine_to_zero: lr · ½(1 + cos(πk / K)); or
    # staircase: linear from 0 over the warm-up, and ×0.1 every so many epochs of labelled images,
    # or with several numbers, after each of these epochs.
    knobs.schedule = "constant"
    knobs.cosine_level = 7.0  # FixMatch's; CReST's is 1
    knobs.warmup_epochs = 0.0  # of staircase
    knobs.warmup_steps = 0  # of the others: linear from 0; k and K count from its end
    knobs.decay_epochs = (50,)
    knobs.weight_decay = 0.0
    knobs.momentum = 0.9  # sgd only
    knobs.clip_norm = 0.0  # to which the length of the gradient is cut; 0: it is not
    # Factor of the learning rate from each block of the network to the one before it.
    knobs.layer_decay = 1.0
    return knobs


def lock(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """No knob can be added any more, but arguments of the method and the model can.

    Those that a recipe leaves out have the defaults of the signatures; `recipe.build` refuses what
    is no argument.
    """
    config.lock()
    config.method_args.unlock()
    config.model_args.unlock()
    return config
