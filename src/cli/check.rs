//! `stoa check`: what is in force and where it came from, and whether what it names is there.

use std::path::Path;

use clap::Args;

use super::Failure;
use crate::config::{self, Loaded, Problem, Problems, explain};
use crate::daemon::preflight::Findings;
use crate::daemon::probe;

/// How to print it.
#[derive(Args)]
pub struct CheckArgs {
    /// Print only what is wrong.
    #[arg(long, short, conflicts_with = "json")]
    quiet: bool,
    /// One JSON object: values with their origins, and problems.
    #[arg(long)]
    json: bool,
}

/// Runs `stoa check`.
pub fn run(file: Option<&Path>, args: &CheckArgs) -> Result<(), Failure> {
    let (loaded, Findings { problems, warnings, notes }) = match config::load(file) {
        Ok(loaded) => {
            let found = probe::all(&loaded);
            (Some(loaded), found)
        }
        Err(problems) => (None, Findings { problems: problems.0, ..Findings::default() }),
    };
    if args.json {
        say!("{:#}", json(loaded.as_ref(), &problems, &warnings));
    } else if let (Some(loaded), false) = (&loaded, args.quiet) {
        say!("# {}", loaded.name());
        say!("{}", explain::text(loaded).trim_end());
        for note in &notes {
            say!("# {note}");
        }
    }
    if !args.json {
        for warning in &warnings {
            tell!("WARNING: {}", warning.line());
        }
    }
    match problems.is_empty() {
        true => Ok(()),
        false => Err(Failure::from(Problems(problems))),
    }
}

fn json(loaded: Option<&Loaded>, problems: &[Problem], warnings: &[Problem]) -> serde_json::Value {
    let values: Vec<_> = loaded
        .map(explain::values)
        .unwrap_or_default()
        .into_iter()
        .map(|value| serde_json::json!({ "key": value.key, "value": value.value, "origin": value.origin }))
        .collect();
    let each = |problem: &Problem| serde_json::json!({ "place": problem.place, "problem": problem.what, "remedy": problem.remedy });
    let all = |problems: &[Problem]| problems.iter().map(each).collect::<Vec<_>>();
    serde_json::json!({ "values": values, "problems": all(problems), "warnings": all(warnings) })
}
