//! A plan as a person reads it: what would change, what is promised, what to run first, what to look at.
//! Pure.

use super::show;
use crate::admin::types::{Change, Plan, PlanProblem};
use crate::error::{Blame, Error};

/// The whole plan.
pub(super) fn lines(plan: &Plan) -> Vec<String> {
    let mut lines = vec![if plan.seen == 0 {
        format!("pipeline {}: new", plan.pipeline)
    } else {
        format!("pipeline {}: from revision {}", plan.pipeline, plan.seen)
    }];
    if plan.changes.is_empty() {
        lines.push("nothing would change".to_owned());
    } else {
        lines.push(changes(&plan.changes));
    }
    for route in &plan.guarantees {
        lines.push(format!(
            "route {} → {}: {}",
            route.route, route.sink, route.guarantee
        ));
        lines.push(format!("  {}", route.why));
    }
    if !plan.ddl.is_empty() {
        lines.push("to run first, by the tables' owner:".to_owned());
        lines.extend(plan.ddl.iter().map(|statement| format!("  {statement}")));
    }
    lines.extend(
        plan.warnings
            .iter()
            .map(|warning| format!("warning: {warning}")),
    );
    for problem in &plan.problems {
        let word = match is_away(problem) {
            true => "away",
            false => "problem",
        };
        lines.push(format!("{word}: {}: {}", problem.what, problem.detail));
        lines.extend(problem.hint.iter().map(|hint| format!("  hint: {hint}")));
    }
    lines
}

/// Takes the statements that the plan shows as one block out of the hints of its problems, which then point there.
pub(super) fn show_ddl_once(plan: &mut Plan) {
    for hint in plan.problems.iter_mut().filter_map(|one| one.hint.as_mut()) {
        let rest = plan
            .ddl
            .iter()
            .fold(hint.clone(), |rest, statement| rest.replace(statement, ""));
        if rest != *hint {
            let words: Vec<_> = rest.split_whitespace().collect();
            *hint = format!("{} see \"to run first\" in the plan", words.join(" "));
        }
    }
}

fn changes(changes: &[Change]) -> String {
    show::table(
        ["change", "from", "", "to"],
        &[],
        changes.iter().map(|change| {
            [
                change.what.clone(),
                show::or_dash(change.from.as_ref()),
                "→".to_owned(),
                show::or_dash(change.to.as_ref()),
            ]
        }),
    )
}

/// Whether nobody could look, and nobody has to mend anything.
fn is_away(problem: &PlanProblem) -> bool {
    problem.class == Blame::Outside.word()
}

/// Why a plan cannot be deployed, blamed by what a person has to mend first, if there is anything to mend.
pub(super) fn refused(pipeline: &str, problems: &[PlanProblem]) -> Option<Error> {
    const AGAIN: &str =
        "nothing has to be mended in the plan, something is away: try again when it answers";
    let first = PlanProblem::decisive(problems)?;
    let what = format!("deploy pipeline {pipeline:?}");
    // Many problems are of the deployment itself, and say so.
    let found = match first.what == what {
        true => first.detail.clone(),
        false => format!("{}: {}", first.what, first.detail),
    };
    let detail = match problems.len() {
        1 => found,
        more => format!("{more} problems, first: {found}"),
    };
    let hint = match (&first.hint, is_away(first)) {
        (Some(hint), true) if hint.ends_with('?') => format!("{hint} {AGAIN}"),
        (Some(hint), true) => format!("{hint}; {AGAIN}"),
        (None, true) => AGAIN.to_owned(),
        (Some(hint), false) => hint.clone(),
        (None, false) => "mend what the plan shows, then deploy again".to_owned(),
    };
    Some(Error::new(Error::from(first).blame(), what, detail).hint(hint))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    #[test]
    fn ddl_stands_in_the_plan_once_and_hints_point_at_it() {
        let hints = [
            "run this, or change the routes:\nCREATE TABLE \"a\" (\n  \"id\" int8\n);\nALTER TABLE b ADD c int4;",
            "create it: ALTER TABLE b ADD c int4;",
            "start the database",
        ];
        let mut plan: Plan = serde_json::from_value(serde_json::json!({
            "pipeline": "p", "seen": 0, "hash": "", "changes": [], "warnings": [], "guarantees": [],
            "ddl": ["CREATE TABLE \"a\" (\n  \"id\" int8\n);", "ALTER TABLE b ADD c int4;"],
            "problems": hints.map(|hint| serde_json::json!({"class": "config", "what": "w", "detail": "d", "hint": hint})),
        }))
        .unwrap();
        show_ddl_once(&mut plan);
        let found: Vec<_> = plan
            .problems
            .iter()
            .filter_map(|one| one.hint.as_deref())
            .collect();
        assert_eq!(
            found,
            [
                "run this, or change the routes: see \"to run first\" in the plan",
                "create it: see \"to run first\" in the plan",
                "start the database"
            ]
        );
        let text = lines(&plan).join("\n");
        assert_eq!(text.matches("ALTER TABLE").count(), 1, "{text}");
    }

    #[test]
    fn a_refusal_says_once_what_was_attempted() {
        let problem = |what: &str| PlanProblem {
            class: "config".to_owned(),
            what: what.to_owned(),
            detail: "its topic would change".to_owned(),
            hint: None,
        };
        let said = |problems: &[PlanProblem]| refused("p", problems).unwrap().to_string();
        let own = problem("deploy pipeline \"p\"");
        assert_eq!(
            said(std::slice::from_ref(&own)),
            "deploy pipeline \"p\": its topic would change"
        );
        assert_eq!(
            said(&[own.clone(), own]),
            "deploy pipeline \"p\": 2 problems, first: its topic would change"
        );
        assert_eq!(
            said(&[problem("look at table t")]),
            "deploy pipeline \"p\": look at table t: its topic would change"
        );
        assert!(refused("p", &[]).is_none());
    }

    #[test]
    fn what_is_away_is_to_be_tried_again_unless_there_is_something_to_mend() {
        let problem = |class: &str, hint: Option<&str>| PlanProblem {
            class: class.to_owned(),
            what: format!("{class} x"),
            detail: "no".to_owned(),
            hint: hint.map(str::to_owned),
        };
        let away = problem("outside", None);
        let said = |problems: &[PlanProblem]| {
            let error = refused("p", problems).unwrap();
            let hint = error.hint_text().unwrap().to_owned();
            (error.blame(), error.detail().to_owned(), hint)
        };
        let (blame, detail, hint) = said(&[away.clone(), away.clone()]);
        assert_eq!(blame, Blame::Outside);
        assert_eq!(detail, "2 problems, first: outside x: no");
        assert!(
            hint.contains("try again") && !hint.contains("mend what"),
            "{hint}"
        );
        let hinted = problem("outside", Some("is it up?"));
        assert!(
            said(&[hinted])
                .2
                .starts_with("is it up? nothing has to be mended")
        );
        // Whatever else there is comes first: trying again does not help.
        for (class, wanted) in [
            ("config", Blame::Config),
            ("plugin", Blame::Plugin),
            ("bug", Blame::Bug),
            ("what a newer host says", Blame::Config),
        ] {
            let mixed = [away.clone(), problem(class, Some("mend it")), away.clone()];
            let (blame, detail, hint) = said(&mixed);
            assert_eq!(blame, wanted, "{class}");
            assert_eq!(detail, format!("3 problems, first: {class} x: no"));
            assert_eq!(hint, "mend it");
        }
    }
}
