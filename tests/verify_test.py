"""Whatever a response makes its scorer do, the others get their verdicts."""

import dataclasses
import functools
import importlib
import os
import pathlib
import socket
import subprocess
import sys
import time
import types
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from lcrl.rollouts.grader import RolloutGrader
from lcrl.tasks import reasoning_gym
from lcrl.tasks.task import Prompt, Task
from lcrl.tasks.verify import Verdict, Verifier
from lcrl.types import Outcome


@pytest.fixture(scope="module")
def hostile():
  """tests/hostile.py under a name that a worker can import too."""
  sys.path.insert(0, str(pathlib.Path(__file__).parent))
  yield importlib.import_module("hostile")
  sys.path.pop(0)


def task(score, threshold=1.0) -> Task:
  return Task("planted", [], score, threshold)


def items(*texts: str) -> list[tuple[str, Prompt]]:
  """Each text is right when it is its own place in the list."""
  return [(text, Prompt(i, (), str(i))) for i, text in enumerate(texts)]


@pytest.fixture(scope="module")
def verifier(hostile):
  with Verifier(task(hostile.obeys), workers=2, deadline=3.0, memory=1 << 28) as opened:
    yield opened


@pytest.mark.parametrize(
  "response, outcome",
  [
    ("sleep", Outcome.TIMEOUT),
    ("spin", Outcome.TIMEOUT),  # holds the interpreter's lock all the while
    ("exit", Outcome.CRASH),
    ("segfault", Outcome.CRASH),
    ("grow", Outcome.CRASH),
    ("raise", Outcome.CRASH),
    ("nan", Outcome.CRASH),
    ("babble", Outcome.CRASH),
    ("no answer", Outcome.BAD_FORMAT),
  ],
)
def test_the_run_goes_on(verifier, response, outcome):
  texts = [str(i) for i in range(12)]
  texts[3], texts[5] = response, "wrong"
  start = time.monotonic()
  verdicts = verifier.verify(items(*texts))
  expected = [Outcome.OK] * 12
  expected[3], expected[5] = outcome, Outcome.WRONG
  assert [v.outcome for v in verdicts] == expected, verdicts[3]
  assert verdicts[3].score == 0.0
  assert verdicts[3].why
  assert time.monotonic() - start < 20


def test_every_worker_may_be_lost_at_once(verifier):
  verdicts = verifier.verify(items("sleep", "exit", "2", "segfault", "sleep", "5"))
  timeout, crash, ok = Outcome.TIMEOUT, Outcome.CRASH, Outcome.OK
  assert [v.outcome for v in verdicts] == [timeout, crash, ok, crash, timeout, ok]


def test_memory_that_one_item_took_is_there_for_the_next(hostile):
  with Verifier(task(hostile.obeys), workers=1, memory=1 << 28) as verifier:
    verdicts = verifier.verify(items("grow", "eval:len(bytearray(1 << 26))"))
  assert [v.outcome for v in verdicts] == [Outcome.CRASH, Outcome.OK]


def test_a_worker_lost_between_calls_costs_no_item(verifier):
  for worker in verifier._workers:
    worker.process.kill()
    worker.process.wait()
  assert [v.outcome for v in verifier.verify(items("0", "1", "2"))] == [Outcome.OK] * 3


def test_many_items_in_order(verifier):
  texts = [str(i) if i % 3 else "wrong" for i in range(2000)]
  verdicts = verifier.verify(items(*texts))
  assert [v.outcome for v in verdicts] == [
    Outcome.OK if i % 3 else Outcome.WRONG for i in range(2000)
  ]
  assert verifier.verify([]) == []


def test_more_may_come_while_some_are_judged(hostile):
  """A worker that hangs holds up no other; every batch gets its own verdicts."""
  with Verifier(task(hostile.obeys), workers=2, deadline=60.0) as verifier:
    slow = verifier.submit(items("sleep"))
    while verifier._todo:
      time.sleep(0.01)
    quick = {n: verifier.submit(items(*(str(i % n) for i in range(n + 1)))) for n in (1, 2, 30)}
    for n, future in quick.items():
      outcomes = [verdict.outcome for verdict in future.result(timeout=30)]
      assert outcomes == [Outcome.OK] * n + [Outcome.WRONG]
    assert verifier.submit([]).result(timeout=0) == []
    assert not slow.done()
  with pytest.raises(RuntimeError, match="was closed"):
    slow.result(timeout=0)


def test_several_threads_may_submit(verifier):
  with ThreadPoolExecutor(4) as pool:
    found = pool.map(lambda n: verifier.verify(items(*map(str, range(n)))), range(1, 9))
  assert [len(verdicts) for verdicts in found] == list(range(1, 9))


def test_text_arrives_as_it_is(verifier):
  for text in ("\x00\n\r\u2028", "\ud800 lone", "é" * 200_000):
    [verdict] = verifier.verify([(text, Prompt(0, (), text))])
    assert verdict == Verdict(1.0, Outcome.OK)


def test_workers_load_no_jax(verifier):
  assert verifier.verify([("hostile", Prompt(0, (), ""))])[0].score == 0.0


def test_threshold_parts_right_from_wrong(hostile):
  with Verifier(task(hostile.obeys, threshold=0.5), workers=1) as verifier:
    verdicts = verifier.verify(items("eval:0.4", "eval:0.5"))
  assert verdicts == [Verdict(0.4, Outcome.WRONG), Verdict(0.5, Outcome.OK)]


def test_a_planted_answer_writes_no_file(verifier, tmp_path):
  kept = tmp_path / "kept"
  kept.write_text("as it was")
  plants = [
    f"open({str(tmp_path / 'made')!r}, 'w')",
    f"open({str(kept)!r}, 'a')",
    f"os.remove({str(kept)!r})",
    f"os.mkdir({str(tmp_path / 'made')!r})",
    f"os.system('touch {tmp_path / 'made'}')",
    f"os.truncate({str(kept)!r}, 0)",
  ]
  libc = "ctypes.CDLL(None)"  # native code does not meet the audit hook: the kernel has to refuse
  native = [
    f"{libc}.open(b'{tmp_path / 'made'}', {os.O_CREAT | os.O_WRONLY}, 0o644) or 0",
    f"{libc}.unlink(b'{kept}')",
    f"{libc}.system(b'touch {tmp_path / 'made'}')",
    f"{libc}.truncate(b'{kept}', 0)",
  ]
  if any("landlock" in guard for guard in verifier.guards):
    plants += native
  for plant in plants:
    verifier.verify(items(f"eval:{plant}"))
    assert [path.name for path in tmp_path.iterdir()] == ["kept"], plant
    assert kept.read_text() == "as it was", plant


@pytest.mark.parametrize(
  "call",
  [
    "chmod(FILE, 0o600)",
    "fchmodat(-100, FILE, 0o600, 0)",
    "chown(FILE, 1, 1)",
    "utimes(FILE, None)",
    "setxattr(FILE, b'user.a', b'b', 1, 0)",
    "prlimit(os.getppid(), 7, None, None)",
    "shmget(0, 1, 0o600)",
    "socket(1, 1, 0)",
  ],
)
def test_native_code_touches_no_attributes_and_no_other_process(verifier, tmp_path, call):
  (tmp_path / "kept").touch(0o644)
  if "seccomp" in verifier.guards:
    call = call.replace("FILE", repr(bytes(tmp_path / "kept")))
    (verdict,) = verifier.verify(items(f"eval:ctypes.CDLL(None).{call}"))
    assert verdict.score == -1.0, verdict
    assert (tmp_path / "kept").stat().st_mode & 0o777 == 0o644


def test_a_planted_answer_reaches_no_network(verifier):
  with socket.create_server(("127.0.0.1", 0)) as server:
    server.setblocking(False)
    port = server.getsockname()[1]
    [verdict] = verifier.verify(items(f"eval:socket.create_connection(('127.0.0.1', {port}))"))
    assert verdict.outcome == Outcome.CRASH
    assert "A scorer may not do this: socket" in verdict.why
    with pytest.raises(BlockingIOError):
      server.accept()
  if "network namespace" in verifier.guards:
    interfaces = "eval:len(open('/proc/self/net/dev').readlines()) - 2"
    assert verifier.verify(items(interfaces))[0].score <= 1  # the loopback, which is down


def test_an_evaluating_scorer_of_reasoning_gym_gets_no_code(tmp_path):
  with pytest.warns(UserWarning, match="string_insertion may evaluate"):
    evaluating = reasoning_gym("string_insertion", seed=0, size=2, allow_evaluating_scorer=True)
  prompt, planted = evaluating.prompts[0], tmp_path / "planted"
  answer = f"[open({str(planted)!r}, 'w').name]"
  package = evaluating.score.keywords["score"].data
  with warnings.catch_warnings(action="ignore"):  # of the file that stays open
    package.score_answer(answer, prompt.reference)
  assert planted.exists(), "the answer is evaluated; otherwise this test shows nothing"
  planted.unlink()
  with Verifier(evaluating, workers=1) as verifier:
    good, bad = verifier.verify([(prompt.reference["answer"], prompt), (answer, prompt)])
    assert "a process for each response" in verifier.guards
  assert (good.outcome, bad.outcome) == (Outcome.OK, Outcome.BAD_FORMAT)
  assert not planted.exists()


def left_behind() -> list[str]:
  """Processes that `hostile.leave` has made."""
  names = pathlib.Path("/proc").glob("[0-9]*/comm")
  return [p.parent.name for p in names if p.exists() and p.read_text() == "left-behind\n"]


def test_an_answer_that_is_evaluated_changes_no_other_verdict(hostile):
  careless = dataclasses.replace(task(hostile.evaluates), evaluates=True)
  attacks = {
    "forge()": {"CRASH"},
    "leave()": {"WRONG", "CRASH"},
    "end_parent()": {"WRONG"},
    "spin()": {"TIMEOUT"},
    "os._exit(0)": {"CRASH"},
  }
  with Verifier(careless, workers=1, deadline=2.0) as verifier:
    for attack, expected in attacks.items():
      texts = ["0", attack, "-1", "3"]
      verdicts = verifier.verify([(text, Prompt(i, (), i)) for i, text in enumerate(texts)])
      outcomes = [verdict.outcome.name for verdict in verdicts]
      assert outcomes[:1] + outcomes[2:] == ["OK", "WRONG", "OK"], attack
      if "seccomp" in verifier.guards:
        assert outcomes[1] in expected, attack
        assert not left_behind(), attack


def test_no_worker_makes_processes(verifier):
  """Not even by native code, which does not meet the audit hook; threads it may."""
  if "seccomp" in verifier.guards:
    fork, thread = (
      "ctypes.CDLL(None).fork()",
      "bool(__import__('_thread').start_new_thread(int, ()))",
    )
    forked, threaded = verifier.verify(items(f"eval:{fork}", f"eval:{thread}"))
    assert (forked.score, threaded.score) == (-1.0, 1.0)


@pytest.mark.parametrize(
  "name, value",
  [
    *(("memory", -1), ("memory", 0), ("memory", 2.5), ("memory", 1 << 70), ("workers", 0)),
    *(("deadline", 0), ("deadline", float("inf")), ("deadline", float("nan"))),
  ],
)
def test_a_limit_that_limits_nothing_is_refused(hostile, name, value):
  with pytest.raises(ValueError, match=f"{name} must be .*{value}"):
    Verifier(task(hostile.exact), **{name: value})


def test_too_little_memory_is_named(hostile):
  with (
    pytest.raises(RuntimeError, match=r"memory=1 bytes \(verify.memory\)"),
    Verifier(task(hostile.exact), workers=1, memory=1),
  ):
    pass


def test_only_a_score_is_correct_whatever_the_threshold(hostile):
  lenient = task(hostile.obeys, threshold=-0.25)
  with Verifier(lenient, workers=1, deadline=1.0) as verifier:
    verdicts = verifier.verify(items("0", "eval:-0.5", "no answer", "sleep", "exit", "raise"))
  assert [verdict.correct for verdict in verdicts] == [True] + [False] * 5
  grader = RolloutGrader(types.SimpleNamespace(task=lenient), None, (), None, None)
  blank = {name: np.ones((1, 6)) for name in ("scores", "outcome", "correct")}
  put = grader.fields(blank, np.argwhere(np.ones((1, 6))), verdicts)
  assert put["correct"].tolist() == [[True] + [False] * 5]


def test_no_worker_no_run(hostile, monkeypatch, tmp_path):
  with pytest.raises(ValueError, match="no name to import it by"):
    Verifier(task(lambda response, reference: 0.0))
  (tmp_path / "fleeting.py").write_text("def score(response, reference): return 0.0")
  with monkeypatch.context() as patch:
    patch.syspath_prepend(tmp_path)
    fleeting = importlib.import_module("fleeting")
  with pytest.raises(RuntimeError, match=r"cannot import the scorer of planted.*fleeting"):
    Verifier(task(functools.partial(fleeting.score)), workers=1).__enter__()
  monkeypatch.setattr(sys, "executable", "/bin/false")
  with pytest.raises(RuntimeError, match=r"do not start.*exit code 1"):
    Verifier(task(hostile.exact), workers=1).__enter__()


def test_closing_ends_the_processes(hostile):
  with Verifier(task(hostile.exact), workers=2) as verifier:
    pids = [worker.process.pid for worker in verifier._workers]
  for pid in pids:
    with pytest.raises(ProcessLookupError):
      os.kill(pid, 0)
  with pytest.raises(RuntimeError, match="not open"):
    verifier.verify(items("0"))


def test_when_workers_start_no_more_those_who_wait_hear_of_it(hostile, monkeypatch):
  with Verifier(task(hostile.obeys), workers=2) as verifier:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="do not start"):
      verifier.submit(items("exit", "exit", "exit")).result(timeout=20)
    with pytest.raises(RuntimeError, match="not open"):
      verifier.verify(items("0"))


def test_orphans_end(hostile):
  """Workers whose parent is killed end: the idle at once, the busy by their own timer."""
  script = """if True:
    import hostile, os, signal, threading
    from lcrl.tasks.task import Prompt, Task
    from lcrl.tasks.verify import Verifier
    verifier = Verifier(Task("planted", [], hostile.obeys), workers=2, deadline=1.0).__enter__()
    print(*(worker.process.pid for worker in verifier._workers), flush=True)
    threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGKILL)).start()
    verifier.verify([("sleep", Prompt(0, (), ""))])
  """
  environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
  done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True)
  pids = done.stdout.split()
  assert len(pids) == 2, done.stderr
  deadline = time.monotonic() + 20
  while any(running(int(pid)) for pid in pids):
    assert time.monotonic() < deadline, "a worker outlives its parent"
    time.sleep(0.1)


def running(pid: int) -> bool:
  try:
    os.kill(pid, 0)
  except ProcessLookupError:
    return False
  status = pathlib.Path(f"/proc/{pid}/stat")  # an orphan may wait for a lazy init to bury it
  return not (status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z")
