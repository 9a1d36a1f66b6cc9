//! Why a subcommand did not succeed, and what the shell is told of it.

use std::process::ExitCode;

use crate::problem::Problem;

/// Why a subcommand did not succeed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// What it was given is wrong; nothing was started. Exit code 2.
    BadInput(Vec<Problem>),
    /// Starting or running failed. Exit code 1.
    Failed(anyhow::Error),
    /// It did what it was asked to, and has said already why that is no success.
    Said(u8),
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

impl Failure {
    /// Prints everything to standard error.
    pub(crate) fn report(self) -> ExitCode {
        match self {
            Self::BadInput(problems) => {
                for problem in problems {
                    eprintln!("{problem}");
                }
                ExitCode::from(2)
            }
            Self::Failed(error) => {
                eprintln!("weir: {error:#}");
                ExitCode::FAILURE
            }
            Self::Said(code) => ExitCode::from(code),
        }
    }
}
