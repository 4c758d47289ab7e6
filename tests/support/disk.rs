// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Reads files of a finished disk without mounting it: sfdisk(8) for the partitions, debugfs(8)
//! for ext4.

use std::path::{Path, PathBuf};
use std::process::Command;

struct Partition {
    offset: u64,
    kind: String,
    size: u64,
}

/// A raw disk with a GPT, `/boot` and `/` on ext4 partitions of their own, `/` the last.
pub struct Disk {
    path: PathBuf,
    partitions: Vec<Partition>,
}

impl Disk {
    pub fn open(path: &Path) -> Self {
        let out = Command::new("sfdisk").arg("-J").arg(path).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let table: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
        assert_eq!(table["partitiontable"]["label"], "gpt");
        let list = table["partitiontable"]["partitions"].as_array().unwrap();
        let partitions = list
            .iter()
            .map(|entry| Partition {
                offset: entry["start"].as_u64().unwrap() * 512,
                size: entry["size"].as_u64().unwrap() * 512,
                kind: entry["type"].as_str().unwrap().to_owned(),
            })
            .collect();
        Self { path: path.to_owned(), partitions }
    }

    pub fn partition_types(&self) -> Vec<String> {
        self.partitions.iter().map(|partition| partition.kind.clone()).collect()
    }

    fn root(&self) -> u64 {
        self.partitions.iter().max_by_key(|partition| partition.size).unwrap().offset
    }

    fn boot(&self) -> u64 {
        let linux = "0FC63DAF-8483-4772-8E79-3D69D8477DE4";
        self.partitions.iter().find(|partition| partition.kind == linux).unwrap().offset
    }

    fn debugfs(&self, offset: u64, request: &str) -> String {
        let device = format!("{}?offset={offset}", self.path.display());
        let out = Command::new("debugfs").args(["-R", request]).arg(device).output().unwrap();
        let problem = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(!problem.contains("Bad magic"), "{problem}");
        String::from_utf8_lossy(&out.stdout).into_owned()
    }

    pub fn exists(&self, path: &str) -> bool {
        self.debugfs(self.root(), &format!("stat \"{path}\"")).contains("Inode:")
    }

    #[track_caller]
    pub fn read(&self, path: &str) -> String {
        assert!(self.exists(path), "{path} is not on the disk");
        self.read_or_empty(path)
    }

    pub fn read_or_empty(&self, path: &str) -> String {
        self.debugfs(self.root(), &format!("cat \"{path}\""))
    }

    fn entries(&self, offset: u64, path: &str) -> Vec<(bool, String)> {
        // debugfs -p: /inode/mode/uid/gid/name/size/
        self.debugfs(offset, &format!("ls -p \"{path}\""))
            .lines()
            .filter_map(|line| {
                let fields: Vec<&str> = line.split('/').collect();
                let (mode, name) = (fields.get(2)?, fields.get(5)?);
                let real = !name.is_empty() && *name != "." && *name != "..";
                real.then(|| (mode.starts_with("04"), (*name).to_owned()))
            })
            .collect()
    }

    pub fn list(&self, path: &str) -> Vec<String> {
        self.entries(self.root(), path).into_iter().map(|(_, name)| name).collect()
    }

    pub fn list_boot(&self) -> Vec<String> {
        self.entries(self.boot(), "/").into_iter().map(|(_, name)| name).collect()
    }

    /// The text of every file below a directory.
    pub fn grep_etc(&self, path: &str) -> String {
        let mut text = String::new();
        for (directory, name) in self.entries(self.root(), path) {
            let path = format!("{path}/{name}");
            if directory {
                text.push_str(&self.grep_etc(&path));
            } else {
                text.push_str(&self.read_or_empty(&path));
            }
        }
        text
    }
}
