"""Crops of encoded images, as TensorFlow functions.

They follow `datasets/imagenet.py` of fixmatch's imagenet code. `encoded` is a string, `number [2]`
int64 seeds the image's random numbers, `size` is the crop's side in pixels.
"""

_EVALUATED = 224 / 256  # fraction of the shorter side in the evaluation's central crop


def training(encoded, number, size):
    """Returns a random crop of 8 to 100 % of the image, aspect 3/4 to 4/3, resized, maybe flipped.

    As in the published code, the crop must also cover a tenth of the image (`min_object_covered`),
    and a crop that equals the full image is replaced by the evaluation's central crop.
    """
    import tensorflow as tf

    crop_seed, flip_seed = tf.unstack(tf.random.split(number, 2))
    shape = _shape(encoded)
    begin, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
        shape,
        bounding_boxes=tf.constant([[[0.0, 0.0, 1.0, 1.0]]]),
        seed=crop_seed,
        min_object_covered=0.1,
        aspect_ratio_range=(3 / 4, 4 / 3),
        area_range=(0.08, 1.0),
        max_attempts=10,
        use_image_if_no_bounding_boxes=True,
    )
    whole = tf.reduce_all(extent[:2] == shape[:2])
    window = tf.where(whole, _central(shape), tf.concat([begin[:2], extent[:2]], axis=0))
    image = _cropped(encoded, window, size)
    return tf.image.stateless_random_flip_left_right(image, flip_seed)


def evaluation(encoded, number, size):
    """Returns the central crop."""
    del number
    return _cropped(encoded, _central(_shape(encoded)), size)


def _shape(encoded):
    """Returns height, width and channels, `[3]` int32."""
    import tensorflow as tf

    return tf.cond(
        tf.io.is_jpeg(encoded),
        lambda: tf.image.extract_jpeg_shape(encoded),
        lambda: tf.shape(tf.io.decode_image(encoded, channels=3, expand_animations=False)),
    )


def _central(shape):
    """Returns the central square of 224/256 of the shorter side: top, left, height, width `[4]`."""
    import tensorflow as tf

    side = tf.cast(_EVALUATED * tf.cast(tf.minimum(shape[0], shape[1]), tf.float32), tf.int32)
    side = tf.maximum(side, 1)  # for images with a height or width of one pixel
    return tf.stack([(shape[0] - side + 1) // 2, (shape[1] - side + 1) // 2, side, side])


def _cropped(encoded, window, size):
    """Returns part of an image, `[size, size, 3]` uint8: bicubic, clipped to 0..255."""
    import tensorflow as tf

    def other():
        image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
        top, left, height, width = tf.unstack(window)
        return image[top : top + height, left : left + width]

    image = tf.cond(
        tf.io.is_jpeg(encoded),
        lambda: tf.image.decode_and_crop_jpeg(encoded, window, channels=3),
        other,
    )
    image = tf.image.resize(image, [size, size], method=tf.image.ResizeMethod.BICUBIC)
    return tf.ensure_shape(tf.saturate_cast(image, tf.uint8), [size, size, 3])
