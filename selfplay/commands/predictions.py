"""`selfplay evaluate` on questions about outputs: what do calls give? (docs/traces.md)"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tqdm import tqdm

from selfplay.commands.attempt_log import AttemptLog, digest, key_of, tell_known
from selfplay.commands.compose import open_policy
from selfplay.config import EvaluateConfig, PolicyConfig, ScaffoldConfig
from selfplay.curriculum.evaluation import Evaluation, Judged, Tried, summary
from selfplay.run_dir.episodes import episode_to_dict
from selfplay.sampling import Policy, Tokenizer
from selfplay.scripted.guesser import ScriptedGuesser
from selfplay.traces.predicting import Asking, Prediction, predict
from selfplay.traces.suites import OutputQuestion
from selfplay.types import Episode, EpisodeStatus


def prediction_key(policy: PolicyConfig, seed: int) -> list[Any]:
    """What an answer depends on; no scaffold has a part in it."""
    return ["output prediction", *key_of(policy, ScaffoldConfig(), seed)]


def open_predictor(config: PolicyConfig) -> Policy:
    """The policy that is asked."""
    return ScriptedGuesser() if config.engine == "scripted" else open_policy(config)


def evaluate_predictions(
    config: EvaluateConfig,
    policy: Policy,
    questions: Sequence[OutputQuestion],
    log: AttemptLog | None,
) -> Evaluation:
    """Ask each question `num_samples` times, what the log holds counted in."""
    known = log.verdicts({question.id: _hash(question) for question in questions}) if log else []
    tell_known(known, config.out)
    numbers = range(config.num_samples)
    found = {(j.instance_id, j.sample): j for j in known if j.sample in numbers}
    has_verdict = {key for key, judged in found.items() if not judged.errored}
    missing = {q.id: [n for n in numbers if (q.id, n) not in has_verdict] for q in questions}

    def keep(prediction: Prediction) -> None:
        judged = Judged(
            instance_id=prediction.question.id,
            sample=prediction.sample,
            resolved=prediction.resolved,
            errored=prediction.completion.errored,
            reason=prediction.reason,
        )
        found[judged.instance_id, judged.sample] = judged
        if log is not None:
            log.add(_line(prediction, policy.tokenizer), _hash(prediction.question))

    asking = Asking(
        max_new_tokens=config.policy.max_new_tokens,
        temperature=config.policy.temperature,
        top_p=config.policy.top_p,
        seed=config.seed,
    )
    with tqdm(total=len(questions), unit="question", desc="evaluate") as bar:
        stopped = predict(policy, questions, missing, asking, keep, bar.update)
    tried = [Tried(instance_id=q.id, repo=q.repo, function=q.place) for q in questions]
    return summary(tried, config.num_samples, found, stopped)


def _line(prediction: Prediction, tokenizer: Tokenizer) -> dict[str, Any]:
    """An attempt as it is kept (docs/formats.md, "Evaluations")."""
    question, completion = prediction.question, prediction.completion
    status: EpisodeStatus = "truncated" if completion.finish_reason == "length" else "completed"
    errored = completion.errored
    episode = Episode(
        episode_id=f"{question.id}/solver/{prediction.sample}",
        group_id=f"{question.id}/solver",
        role="solver",
        repo=question.repo,
        task_id=question.id,
        bug_id=question.id,
        status="errored" if errored else status,
        reward=None if errored else (1.0 if prediction.resolved else -1.0),
        reason=prediction.reason,
        trajectory=None,
        answer=completion.text,
        policy_version=completion.policy_version,
        info={},
    )
    return episode_to_dict(episode) | {
        "num_tokens": len(completion.token_ids),
        "num_prompt_tokens": len(prediction.prompt_ids),
        "sample": prediction.sample,
        "resolved": prediction.resolved,
        "errored": errored,
        "prompt": tokenizer.decode(prediction.prompt_ids),
        "patch": "",
        "gold": question.output,
        "said": prediction.said,
        "function": question.place,
    }


def _hash(question: OutputQuestion) -> str:
    return digest([question.text, question.output])
