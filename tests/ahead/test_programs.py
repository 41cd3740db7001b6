import jax
import jax.numpy as jnp
import pytest

from ssljax.ahead import fit, programs
from ssljax.training import step_flops

PROGRAM = """HloModule jit_step, is_scheduled=true
%sum (a: f32[], b: f32[]) -> f32[] {
  ROOT %add.1 = f32[] add(%a, %b)
}
%piece (p: u8[10]) -> u8[20] {
  ROOT %all-gather.3 = u8[20]{0} all-gather(%p), channel_id=16, dimensions={0}
}
ENTRY %main (p: f32[8,4]) -> (f32[8,4], u8[2]) {
  %p = f32[8,4]{1,0:T(8,128)} parameter(0)
  %all-reduce.7 = (f32[10]{0:T(128)}, bf16[3,2]{1,0}) all-reduce(%p, %p), to_apply=%sum
  %all-reduce-start.1 = f32[5]{0} all-reduce-start(%p), to_apply=%sum
  %all-reduce-done.1 = f32[5]{0} all-reduce-done(%all-reduce-start.1)
  %all-gather-start.2 = (u8[2]{0}, u8[16]{0}) all-gather-start(%p), dimensions={0}
  %all-gather.4 = u8[20]{0:S(1)} all-gather(%p), channel_id=16, dimensions={0}
  %all-gather.5 = u8[20]{0} all-gather(%p), channel_id=17, dimensions={0}
  %all-gather.6 = u8[20]{0} all-gather(%p), channel_id=17, dimensions={0}
  %send.3 = (f32[2]{0}, u32[], token[]) send(%p), is_host_transfer=true
  %send-done.3 = token[] send-done(%send.3), is_host_transfer=true
  %call.4 = f32[2]{0} custom-call(%p), custom_call_target="xla_python_cpu_callback"
  %call.5 = f32[2]{0} custom-call(%p), custom_call_target="Sharding"
  ROOT %tuple.9 = (f32[8,4]{1,0}, u8[2]{0}) tuple(%p, %call.5)
}
"""


def test_collectives_and_their_bytes():
    found = programs.collectives(PROGRAM)
    assert found == {
        "all-reduce": programs.Sent(2, 40 + 12 + 20),
        # Of channel 16 there are two pieces of one transfer, and of channel 17 two transfers.
        "all-gather": programs.Sent(4, 16 + 20 + 2 * 20),
    }


def test_transfers_to_the_host():
    assert programs.host_transfers(PROGRAM) == 3
    assert programs.host_transfers(PROGRAM.replace("callback", "sort")) == 2


def test_the_figures_of_a_program():
    step = jax.pmap(lambda x: jax.lax.psum(x @ x, "i"), "i", devices=jax.devices()[:2])
    lowered = step.lower(jax.ShapeDtypeStruct((2, 32, 32), jnp.float32))
    found = programs.compile_program(lowered)
    assert found.arguments == 32 * 32 * 4
    assert found.collectives == {"all-reduce": programs.Sent(1, 32 * 32 * 4)}
    assert found.host_transfers == 0
    assert found.flops == pytest.approx(2 * 32**3, rel=0.1)
    assert found.peak >= found.arguments
    assert found.seconds > 0


@pytest.mark.parametrize("start", [1, 7, 100, 1000])
@pytest.mark.parametrize("most", [0, 1, 2, 6, 63, 100, 777])
def test_the_largest_that_fits_is_found_to_an_eighth(start, most):
    asked = []

    def fits(number):
        assert number not in asked
        asked.append(number)
        return number <= most

    found = fit.largest(fits, start)
    assert found <= most < found + max(1, found // 8) + (found == 0)
    assert len(asked) < 16


def counted(function, *arguments, platform="cpu"):
    return step_flops.count(jax.make_jaxpr(function)(*arguments).jaxpr, platform)


def test_arithmetic_by_hand():
    a, b = jnp.zeros((5, 7)), jnp.zeros((7, 3))
    once = 2 * 5 * 7 * 3
    assert counted(jnp.dot, a, b) == once
    assert counted(jax.jit(lambda a, b: jnp.sin(a @ b) @ b.T), a, b) == 2 * once
    assert counted(lambda a, b: jax.lax.map(lambda _: a @ b, jnp.arange(4)), a, b) == 4 * once

    def chosen(a, b):
        return jax.lax.platform_dependent(
            a, b, tpu=lambda a, b: a @ b, default=lambda a, b: a[:, :3] * b.sum()
        )

    assert counted(chosen, a, b, platform="tpu") == once
    assert counted(chosen, a, b) == 0


@pytest.mark.parametrize("stride", [1, 2])
def test_convolutions_and_their_gradients_by_hand(stride):
    images, kernel = jnp.zeros((2, 8, 8, 3)), jnp.zeros((3, 3, 3, 5))

    def convolve(images, kernel):
        numbers = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            images, kernel, (stride, stride), "SAME", dimension_numbers=numbers
        )

    forward = 2 * 2 * (8 // stride) ** 2 * 5 * 9 * 3
    assert counted(convolve, images, kernel) == forward
    for argument in (0, 1):
        gradient = jax.grad(lambda *x: jnp.sum(convolve(*x) ** 2), argument)
        assert counted(gradient, images, kernel) == pytest.approx(2 * forward, rel=0.02)
