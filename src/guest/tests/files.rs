// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Files and trees into the guest, and out of it.

use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::target::{Action, AssetFile, FileUpload};

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o7777
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_file_arrives_whole_with_its_mode_or_not_at_all() {
    let (_server, session, _) = logged_in().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("it's a file");
    let to = path.to_str().unwrap();
    let bytes: Vec<u8> = (0..300_000u32).map(|n| (n * 7) as u8).collect();
    upload_bytes(&session, &bytes, to, 0o4750).await.unwrap();
    assert!(std::fs::read(&path).unwrap() == bytes);
    assert_eq!(mode(&path), 0o4750);
    upload_bytes(&session, b"", to, 0o600).await.unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"");
    assert_eq!(mode(&path), 0o600);

    let failure = upload_bytes(&session, b"x", "/nowhere/at/all", 0o644).await.unwrap_err();
    assert!(failure.to_string().contains("/nowhere/at is no directory"), "{failure}");
    let place = dir.path().to_str().unwrap();
    let failure = upload_bytes(&session, b"x", place, 0o644).await.unwrap_err();
    assert!(failure.to_string().contains("end its name with /"), "{failure}");
    assert!(upload_bytes(&session, b"x", "relative", 0o644).await.is_err());
    assert_eq!(names(dir.path()), ["it's a file"], "no temporary file is left");

    let back = download(&session, to, 10).await.unwrap();
    assert_eq!(back.as_deref(), Some(&b""[..]));
    assert_eq!(download(&session, "/nowhere/file", 10).await.unwrap(), None);
}

#[tokio::test]
async fn an_upload_out_of_time_leaves_no_temporary_file() {
    let (_server, session, _) = logged_in().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("big");
    let short = session.until(tokio::time::Instant::now() + Duration::from_millis(150));
    let bytes = vec![7u8; 64 << 20];
    let failure = upload_bytes(&short, &bytes, path.to_str().unwrap(), 0o644).await.unwrap_err();
    assert!(failure.summary().contains("timed out"), "{failure}");
    // The guest's script is killed; its shell may be removing the file still.
    let gone = async {
        let mut look = tokio::time::interval(Duration::from_millis(20));
        while !names(dir.path()).is_empty() {
            look.tick().await;
        }
    };
    let gone = tokio::time::timeout(Duration::from_secs(90), gone).await;
    assert!(gone.is_ok(), "left: {:?}", names(dir.path()));
}

fn tree() -> Vec<AssetFile> {
    let long = format!("deep/{}/{}", "d".repeat(120), "f".repeat(120));
    [("top", 0o644, "1"), ("bin/run me", 0o755, "2"), (long.as_str(), 0o600, "3")]
        .map(|(path, mode, text)| AssetFile { path: path.into(), mode, bytes: text.into() })
        .into()
}

fn check_tree(dir: &Path) {
    for file in tree() {
        let path = dir.join(&file.path);
        assert_eq!(std::fs::read(&path).unwrap(), file.bytes, "{}", file.path);
        assert_eq!(mode(&path), file.mode, "{}", file.path);
    }
}

#[tokio::test]
async fn a_tree_arrives_with_modes_beside_what_is_there() {
    let (_server, session, _) = logged_in().await;
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("new/place");
    std::fs::create_dir_all(to.join("bin")).unwrap();
    std::fs::write(to.join("bin/other"), "stays").unwrap();
    upload_tree(&session, &tree(), to.to_str().unwrap()).await.unwrap();
    check_tree(&to);
    assert_eq!(std::fs::read(to.join("bin/other")).unwrap(), b"stays");
}

#[tokio::test]
async fn a_guest_without_tar_gets_its_tree_all_the_same() {
    // A server whose commands find no tar: a search path of links to everything else needed.
    let tools = tempfile::tempdir().unwrap();
    for tool in ["cat", "mkdir", "dirname", "wc", "chmod", "mv", "rm", "dd"] {
        let real = ["/bin", "/usr/bin"].map(|d| Path::new(d).join(tool));
        let real = real.iter().find(|p| p.exists()).unwrap();
        std::os::unix::fs::symlink(real, tools.path().join(tool)).unwrap();
    }
    let key = BuildKey::generate("test").unwrap();
    let mut setup = Setup::new();
    setup.authorized =
        Some(format!("environment=\"PATH={}\" {}", tools.path().display(), key.public_line()));
    let server = Server::start(&setup);
    let wait = wait_for(server.address, Some(key));
    let session = connect(&wait, Duration::from_secs(20), &Events::silent()).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("t");
    upload_tree(&session, &tree(), to.to_str().unwrap()).await.unwrap();
    check_tree(&to);
    assert!(!session.capture(&Command::new("tar --version"), 10).await.unwrap().ended.good());
}

#[tokio::test]
async fn the_file_step_follows_rsyncs_rules() {
    let (_server, session, _) = logged_in().await;
    let dir = tempfile::tempdir().unwrap();
    let stage = Stage::new(vec![("files/motd", 0o644, "hi"), ("files/sub/x", 0o700, "x")]);
    let place = dir.path().display();
    let upload = |source: &str, to: String| {
        step(Action::File(FileUpload {
            source: source.into(),
            content: None,
            destination: to,
            mode: 0o640,
        }))
    };
    let report = stage
        .run(&session, upload("files/motd", format!("{place}/{{{{ .Name }}}}")))
        .await
        .unwrap();
    assert!(report.summary.contains("2 bytes"), "{report:?}");
    assert_eq!(mode(&dir.path().join("tiny-1")), 0o640);
    stage.run(&session, upload("files/motd", format!("{place}/a/b/"))).await.unwrap();
    assert_eq!(std::fs::read(dir.path().join("a/b/motd")).unwrap(), b"hi");
    stage.run(&session, upload("files", format!("{place}/c/"))).await.unwrap();
    assert_eq!(mode(&dir.path().join("c/files/sub/x")), 0o700);
    stage.run(&session, upload("files/", format!("{place}/d/"))).await.unwrap();
    assert_eq!(std::fs::read(dir.path().join("d/sub/x")).unwrap(), b"x");
    stage.run(&session, upload("files", format!("{place}/e"))).await.unwrap();
    assert!(dir.path().join("e/motd").exists());

    let failure = stage.run(&session, upload("nothing", format!("{place}/f"))).await.unwrap_err();
    assert!(failure.summary().contains("step `a step`: there is no file `nothing`"), "{failure}");
    let mut content = upload("", format!("{place}/g"));
    let Action::File(file) = &mut content.action else { panic!() };
    file.content = Some("name {{ .Name }}\n".into());
    stage.run(&session, content).await.unwrap();
    assert_eq!(std::fs::read(dir.path().join("g")).unwrap(), b"name tiny-1\n");
}
