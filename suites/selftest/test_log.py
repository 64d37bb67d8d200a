import pytest

from fixtures.serving.log import exit_words, last_line, reason, redact, stage, tail

FRAME = '  File "/x/vllm/v1/worker/cpu_model_runner.py", line 1, in {}\n    {}()\n    ^^^^\n'


def logged(process: str, text: str, level: str = "ERROR") -> list[str]:
    return [f"({process}) {level} 11-22 21:50:53 [x.py:953] {line}" for line in text.split("\n")]


def traceback(function: str, error: str) -> str:
    frame = FRAME.format(function, function)
    return f"EngineCore failed to start.\nTraceback (most recent call last):\n{frame}{error}"


def interleaved(*parts: list[str]) -> str:
    longest = max(len(part) for part in parts)
    rows = [part[index] for index in range(longest) for part in parts if index < len(part)]
    return "\n".join(rows) + "\n"


def test_the_reason_is_the_first_error_that_is_nobodys_consequence() -> None:
    first = logged("Worker_TP1 pid=7", traceback("load_model", "ValueError: no kernel for 112"))
    second = logged("Worker_TP0 pid=6", traceback("load_model", "ValueError: the other rank's"))
    engine = logged(
        "EngineCore pid=5",
        traceback("run", "Exception: WorkerProc initialization failed due to an exception"),
    )
    text = interleaved(first, second) + interleaved(engine)
    text += "Traceback (most recent call last):\nRuntimeError: Engine core initialization failed.\n"
    assert reason(text) == "ValueError: no kernel for 112"


def test_a_message_of_several_lines_is_kept_together() -> None:
    error = "ValueError: no kernel. Reasons: \n A: wrong type\n B: wrong size"
    text = interleaved(
        logged("Worker_TP0 pid=6", traceback("load_model", error)),
        logged("Worker_TP1 pid=7", "something unrelated\n" * 9, "INFO"),
    )
    assert reason(text) == "ValueError: no kernel. Reasons: A: wrong type B: wrong size"


def test_an_assertion_without_words_is_named_by_its_line_of_code() -> None:
    text = (
        "Traceback (most recent call last):\n"
        '  File "/x.py", line 1, in __init__\n'
        "    assert self.total_num_kv_heads % tp_size == 0\n"
        "           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^\n"
        "AssertionError\n"
    )
    assert reason(text) == "AssertionError: assert self.total_num_kv_heads % tp_size == 0"


def test_a_validation_error_is_named_by_its_text() -> None:
    text = (
        "Traceback (most recent call last):\n"
        '  File "/x/arg_utils.py", line 1, in create_engine_config\n    config = VllmConfig(\n'
        "pydantic_core._pydantic_core.ValidationError: 1 validation error for VllmConfig\n"
        "  Value error, Total number of attention heads (28) must be divisible by tensor parallel "
        "size (8). [type=value_error, input_value=ArgsKwargs((), {}), input_type=ArgsKwargs]\n"
        "    For further information visit https://errors.pydantic.dev\n"
    )
    assert reason(text) == (
        "ValidationError: Total number of attention heads (28) must be divisible by tensor "
        "parallel size (8)."
    )
    assert stage(text) == "config"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "[rank0]:[F1122 21:49:20.3593 cpu_wna16.cpp:296] Check failed: a % 2 == 0 (1 vs. 0)",
            "cpu_wna16.cpp:296 Check failed: a % 2 == 0 (1 vs. 0)",
        ),
        (
            "(EngineCore pid=1) ERROR 11-22 21:53:45 [multiproc_executor.py:315] Worker proc "
            "VllmWorker-2 died unexpectedly (exit code: -8), shutting down executor.",
            "Worker proc VllmWorker-2 died unexpectedly (exit code: -8): ended by SIGFPE",
        ),
        ("api_server.py: error: unrecognized arguments: --x", "error: unrecognized arguments: --x"),
        ("Fatal Python error: Segmentation fault", "Fatal Python error: Segmentation fault"),
        ("(APIServer pid=1) ERROR 11-22 21:53:45 [x.py:1] out of disk", "out of disk"),
    ],
)
def test_a_death_without_traceback_has_a_reason_too(line: str, expected: str) -> None:
    after = interleaved(logged("EngineCore pid=1", traceback("run", "RuntimeError: cancelled")))
    assert reason(f"{line}\n{after}") == expected


def test_a_warning_with_a_traceback_is_no_reason() -> None:
    harmless = logged("Worker pid=1", traceback("probe", "ImportError: no oneDNN"), "WARNING")
    fatal = logged("Worker pid=1", traceback("load_model", "ValueError: this"))
    assert reason(interleaved(harmless)) is None
    assert reason(interleaved(harmless) + interleaved(fatal)) == "ValueError: this"


def test_a_consequence_is_told_where_nothing_else_is() -> None:
    error = "RuntimeError: Engine core initialization failed. Failed core proc(s): {'core': -9}"
    text = interleaved(logged("APIServer pid=1", traceback("run", error)))
    assert reason(text) == error


def test_a_healthy_log_names_no_reason() -> None:
    assert reason("INFO:     Application startup complete.\n") is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "config"),
        ("Initializing a V1 LLM engine (v0.32.0) with config:", "config"),
        ("Starting to load model /m...", "load"),
        ("Loading weights took 0.03 seconds", "load"),
        ("Explicitly set (1.0/8.34) GiB for KV cache on node 0.", "warmup"),
        ("CPU KV cache size: 524,288 tokens, Maximum concurrency", "warmup"),
        ("Starting vLLM server on http://127.0.0.1:9101", "warmup"),
        ("INFO:     Application startup complete.", "first_request"),
    ],
)
def test_the_stage_is_the_furthest_that_the_log_shows(text: str, expected: str) -> None:
    assert stage(f"Starting up\n(Worker pid=1) INFO 11-22 21:50:53 [x.py:1] {text}\n") == expected


def test_one_rank_through_with_loading_does_not_hide_that_another_failed_in_it() -> None:
    done = logged("Worker_TP0 pid=6", "Model loading took 4.2 GiB memory and 3 seconds", "INFO")
    failed = logged("Worker_TP1 pid=7", traceback("load_model", "ValueError: no"))
    assert stage(interleaved(done) + interleaved(failed)) == "load"


def test_a_traceback_through_the_profile_run_is_the_warmups() -> None:
    text = "Starting to load model /m...\n" + interleaved(
        logged("Worker pid=7", traceback("determine_available_memory", "OutOfMemoryError: CUDA"))
    )
    assert stage(text) == "warmup"


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("token hf_abcdefghijklmnop here", "token [redacted] here"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer [redacted]"),
        ("key sk-abcdefgh12345678", "key [redacted]"),
        ("'api_key': 'abcdefgh'", "'api_key': '[redacted]'"),
        ("HF_TOKEN=abcdefgh", "HF_TOKEN=[redacted]"),
        ("api_key=None, eos_token='</s>', max_tokens=4096", None),
        ("Maximum concurrency for 512 tokens per request: 512.00x", None),
    ],
)
def test_what_looks_like_a_secret_is_redacted_and_nothing_else(said: str, kept: str | None) -> None:
    assert redact(said) == (kept or said)


def test_colours_and_prefixes_are_not_part_of_what_was_said() -> None:
    text = "\x1b[0;36m(Worker pid=1)\x1b[0;0m INFO 11-22 21:50:53 [x.py:1] \x1b[32mhello\x1b[0m\n\n"
    assert last_line(text) == "hello"
    assert "\x1b" not in tail(text)


def test_an_exit_code_is_put_into_words() -> None:
    assert exit_words(3) == "exited with status 3"
    assert exit_words(-9) == "ended by SIGKILL (usually the host ran out of memory)"
