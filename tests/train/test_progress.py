from zoo.train import progress as module
from zoo.train.progress import Progress


def test_speed_counts_training_time_alone(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    progress = Progress(1000, 32, 0.0, show=False)
    for _ in range(10):  # ten dispatches of 5 steps in 2 s each, the clock asked to go on each time
        progress.go_on()
        progress.advance(5)
        now[0] += 2.0
    progress.pause()
    now[0] += 1000.0  # an evaluation
    assert progress.speeds() == {"steps_per_second": 2.5, "examples_per_second": 80.0}
    progress.waited(100.0)  # the clock stands
    assert progress.waiting_share() == 0
    progress.go_on()
    progress.waited(5.0)
    now[0] += 20.0
    assert progress.waiting_share() == 5 / 40
    progress.advance(50)
    assert progress.speeds()["steps_per_second"] == 2.5
