from ssljax.ahead import gpus, launches
from ssljax.ahead.launches import Launches

# The figures of comments are kernels: cuDNN's and conditions count as said.
STEPS = """HloModule jit_many, is_scheduled=true

%fused_add (p: f32[4]) -> f32[4] {
  ROOT %add.1 = f32[4]{0} add(%p, %p)
}

%way_1 (p: f32[4]) -> f32[4] {
  %copy.1 = f32[4]{0} copy(%p)
  ROOT %copy.2 = f32[4]{0} copy(%copy.1)
}

%way_2 (p: f32[4]) -> f32[4] {
  ROOT %copy.3 = f32[4]{0} copy(%p)
}

%turn (p: (s32[], f32[4])) -> (s32[], f32[4]) {
  %fusion.1 = (f32[4]{0}, /*index=1*/f32[]) fusion(%p), kind=kLoop, calls=%fused_add
  %cond.1 = (f32[4]{0}) conditional(%p, %p, %p), true_computation=%way_1, false_computation=%way_2
  ROOT %tuple.1 = (s32[], f32[4]{0}) tuple(%p, %fusion.1)
}

%condition (p: (s32[], f32[4])) -> pred[] {
  ROOT %fusion.2 = pred[] fusion(%p), kind=kLoop, calls=%fused_add
}

%step (p: (s32[], f32[4])) -> (s32[], f32[4]) {
  %partition-id.1 = u32[] partition-id()
  %while.1 = (s32[], f32[4]{0}) while(%p), condition=%condition, body=%turn, \
backend_config={"known_trip_count":{"n":"5"},"known_init_step":{"init":"0","step":"1"}}
  %conv.1 = (f32[4]{0}, u8[0]{0}) custom-call(%p), custom_call_target="__cudnn$convForward"
  %all-reduce-start.1 = f32[4]{0} all-reduce-start(%p), to_apply=%fused_add
  %all-reduce-done.1 = f32[4]{0} all-reduce-done(%all-reduce-start.1)
  ROOT %while.2 = (s32[], f32[4]{0}) while(%p), condition=%condition, body=%turn
}

ENTRY %main (p: f32[4]) -> (s32[], f32[4]) {
  %p = f32[4]{0} parameter(0)
  %fusion.9 = f32[4]{0} fusion(%p), kind=kLoop, calls=%fused_add
  ROOT %while.3 = (s32[], f32[4]{0}) while(%fusion.9), condition=%condition, body=%step
}
"""
TURN = 1 + 2 + 1  # the fusion, the longer way, and the fusion of the condition


def test_a_step_is_what_the_loop_of_steps_repeats():
    """The inner loops turn five times and, as nobody knows how often, once."""
    kernels = 5 * TURN + 2 + TURN + 1
    assert launches.count(STEPS) == Launches(kernels, 1, host_conditions=5 + 1 + 1 + 1)


def test_without_a_loop_of_steps_the_program_is_one():
    """Its own kernels are more than those of its only loop of unknown length."""
    program = (
        STEPS.replace("body=%step", "body=%turn")
        .replace("%fusion.9 =", "%copy.9 = f32[4]{0} copy(%p)\n" * 4 + "  %fusion.9 =")
        .replace("\n%copy.9", "\n  %copy.9")
    )
    assert launches.count(program) == Launches(5 + TURN, 0, host_conditions=2)


def test_branches_by_their_number():
    listed = "branch_computations={%way_2, %way_1}"
    program = STEPS.replace("true_computation=%way_1, false_computation=%way_2", listed)
    assert launches.count(program) == launches.count(STEPS)


def test_an_h100_in_words_of_the_compiler():
    text = gpus.describe(gpus.H100)
    assert text.startswith("gpu_device_info {\n  core_count: 132\n")
    assert text.count("{") == text.count("}") == 3
    assert gpus.memory(gpus.H100) == 63_707_234_304
