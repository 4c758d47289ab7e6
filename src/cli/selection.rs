// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The flags that say which target is meant and with which variables.

use std::path::PathBuf;

use clap::Args;

use crate::target::{self, Examined, LoadOptions, Loaded};
use crate::ui::{Failure, Outcome};

/// Which target, and with which variables.
#[derive(Debug, Clone, Args)]
pub(crate) struct Selection {
    /// Set a variable; stronger than files and the environment
    #[arg(long, value_name = "NAME=VALUE", value_parser = assignment)]
    var: Vec<(String, String)>,
    /// Set variables from a YAML or JSON file; the last file wins
    #[arg(long, value_name = "FILE")]
    var_file: Vec<PathBuf>,
    /// Take the target from a file; the files that it names are looked for beside it first
    #[arg(long, value_name = "FILE")]
    target_file: Option<PathBuf>,
}

fn assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

impl Selection {
    fn options(&self) -> LoadOptions {
        LoadOptions {
            vars: self.var.clone(),
            var_files: self.var_file.clone(),
            target_file: self.target_file.clone(),
            ..LoadOptions::of_process()
        }
    }

    /// The names meant by `given`; none given means the one of `--target-file`.
    ///
    /// # Errors
    /// No name and no file; several names for one file.
    pub(crate) fn chosen(&self, given: &[String]) -> Outcome<Vec<String>> {
        match (&self.target_file, given) {
            (Some(file), []) => Ok(vec![target::name_in_file(file)?]),
            (Some(file), [_, _, ..]) => Err(Failure::input("one file holds one target")
                .fact("file", file.display())
                .fact("targets", given.join(", "))),
            (None, []) => {
                Err(Failure::input("no target is named").hint("`imgforge list` shows the targets"))
            }
            _ => Ok(given.to_vec()),
        }
    }

    /// All names of the catalogue, or the one of `--target-file`.
    pub(crate) fn names(&self) -> Outcome<Vec<String>> {
        match &self.target_file {
            Some(file) => Ok(vec![target::name_in_file(file)?]),
            None => target::names(&self.options().working_dir),
        }
    }

    /// Loads one target.
    pub(crate) fn load(&self, name: &str) -> Outcome<Loaded> {
        target::load(name, &self.options())
    }

    /// Loads all targets before the first is built.
    pub(crate) fn load_all(&self, names: &[String]) -> Outcome<Vec<Loaded>> {
        let options = self.options();
        let names = self.chosen(names)?;
        names.iter().map(|name| target::load(name, &options)).collect()
    }

    /// Reads one target for all that is to be said about it.
    pub(crate) fn examine(&self, name: &str) -> Outcome<Examined> {
        target::examine(name, &self.options())
    }
}
