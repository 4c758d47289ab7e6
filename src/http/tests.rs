// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Tests of the server with raw sockets, curl, wget and busybox as its clients.
#![allow(clippy::unwrap_used)]

use std::net::Ipv4Addr;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;

use super::*;
use crate::ui::Event;

const PAGE: &str = "d-i passwd/root-password-crypted password $6$salt$hash\n";
const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

struct Bench {
    folder: TempDir,
    server: Server,
    list: Arc<Mutex<Vec<Event>>>,
}

impl Bench {
    async fn start() -> Self {
        Self::start_with(Bounds::default()).await
    }

    async fn start_with(bounds: Bounds) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let files = folder.path().join("files");
        std::fs::create_dir_all(files.join("sub")).unwrap();
        std::fs::write(folder.path().join("secret"), "SECRET").unwrap();
        std::fs::write(files.join("a.txt"), "0123456789").unwrap();
        std::fs::write(files.join("sub/b c.sh"), "#!/bin/sh\n").unwrap();
        std::fs::write(files.join("big.bin"), vec![b'x'; 8 << 20]).unwrap();
        std::os::unix::fs::symlink("../secret", files.join("out")).unwrap();
        std::os::unix::fs::symlink("..", files.join("up")).unwrap();
        std::os::unix::fs::symlink("a.txt", files.join("in")).unwrap();
        nix::unistd::mkfifo(&files.join("pipe"), nix::sys::stat::Mode::S_IRUSR).unwrap();
        let content = Content::new()
            .page("/preseed.cfg", "text/plain", PAGE)
            .and_then(|content| content.page("/ubuntu/meta-data", "text/plain", ""))
            .and_then(|content| content.directory(&files))
            .unwrap();
        let (events, list) = Events::recorded();
        let server = Server::start_with(LOCAL, |_| Ok(content), &events, bounds).await.unwrap();
        Self { folder, server, list }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.server.addr()).await.unwrap()
    }

    /// Sends `text` and reads until the server closes.
    async fn raw(&self, text: &str) -> String {
        let mut stream = self.connect().await;
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let answer = self.raw(&format!("GET {path} HTTP/1.0\r\n\r\n")).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.server.addr())
    }

    fn events(&self) -> Vec<Event> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn answered(&self, count: u64) {
        let mut watch = self.server.watch();
        let reached = watch.wait_for(|answered| *answered >= count);
        tokio::time::timeout(Duration::from_secs(10), reached).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn serves_pages_and_files_to_old_and_new_clients() {
    let bench = Bench::start().await;
    assert_eq!(bench.get("/preseed.cfg").await, (200, PAGE.to_owned()));
    assert_eq!(bench.get("//preseed.cfg").await, (200, PAGE.to_owned()));
    assert_eq!(bench.get("/preseed.cfg?x=/../y").await, (200, PAGE.to_owned()));
    assert_eq!(bench.get("/ubuntu/meta-data").await, (200, String::new()));
    assert_eq!(bench.get("/files/a.txt").await, (200, "0123456789".to_owned()));
    assert_eq!(bench.get("/files/sub/b%20c.sh").await.1, "#!/bin/sh\n");
    assert_eq!(bench.get("/files/in").await.1, "0123456789", "a link that stays inside");
    assert_eq!(bench.get("/files/up/files/a.txt").await.1, "0123456789", "out and in again");
    let new = bench.raw("GET http://any/preseed.cfg HTTP/1.1\r\n\r\n").await;
    assert!(new.starts_with("HTTP/1.1 200") && new.ends_with(PAGE), "{new}");
    let head = bench.raw("HEAD /preseed.cfg HTTP/1.0\r\n\r\n").await;
    let length = format!("content-length: {}", PAGE.len());
    assert!(head.contains(&length) && head.ends_with("\r\n\r\n"), "{head}");
    let part = bench.raw("GET /files/a.txt HTTP/1.0\r\nRange: bytes=3-5\r\n\r\n").await;
    assert!(part.starts_with("HTTP/1.0 206") && part.ends_with("\r\n\r\n345"), "{part}");
    assert!(part.contains("content-range: bytes 3-5/10"), "{part}");
    let part = bench.raw("GET /preseed.cfg HTTP/1.0\r\nRange: bytes=-5\r\n\r\n").await;
    assert!(part.ends_with("\r\n\r\nhash\n"), "{part}");
    let none = bench.raw("GET /files/a.txt HTTP/1.0\r\nRange: bytes=10-\r\n\r\n").await;
    assert!(none.starts_with("HTTP/1.0 416") && none.contains("bytes */10"), "{none}");
}

#[tokio::test]
async fn nothing_else_is_served() {
    let bench = Bench::start().await;
    for path in [
        "/",
        "/files",
        "/files/",
        "/files/sub",
        "/files/none",
        "/secret",
        "/files/out",
        "/files/up/secret",
        "/files/pipe",
        "/files/../secret",
        "/files/%2e%2e/secret",
        "/files/..%2fsecret",
        "/files/%2e%2e%2fsecret",
        "/..",
        "/../../../../etc/passwd",
        "//etc/passwd",
        "/files//etc/passwd",
        "/files/a.txt%00",
        "/files/a.txt/",
        "/files/a.txt/..",
        "/files/..%5csecret",
        "/%2fetc/passwd",
        "/preseed.cfg/x",
        "/files/a.txt/x",
        "/%c0%ae%c0%ae/secret",
        "/files/%252e%252e/secret",
    ] {
        let (status, body) = bench.get(path).await;
        if path == "/files/a.txt/" {
            assert_eq!((status, body.as_str()), (200, "0123456789"), "the same name");
            continue;
        }
        assert!(matches!(status, 400 | 404), "{path}: {status}");
        assert!(!body.contains("SECRET") && !body.contains("root:"), "{path}: {body}");
        let place = bench.folder.path().to_string_lossy().into_owned();
        assert!(!body.contains(&place), "{path} tells about the host: {body}");
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "BREW"] {
        let request = format!("{method} /preseed.cfg HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc");
        let answer = bench.raw(&request).await;
        assert!(answer.starts_with("HTTP/1.0 405"), "{method}: {answer}");
        assert!(answer.contains("allow: GET, HEAD"), "{answer}");
    }
}

#[tokio::test]
async fn a_miss_suggests_the_nearest_name_and_everything_is_an_event() {
    let bench = Bench::start().await;
    let (status, body) = bench.get("/presed.cfg").await;
    assert!(status == 404 && body.contains("did you mean /preseed.cfg?"), "{body}");
    bench.raw("GET /preseed.cfg HTTP/1.1\r\nUser-Agent: d-i\x07\r\n\r\n").await;
    bench.raw("GET /preseed.cfg HTTP/1.1\r\nUser-Agent: debian-installer\r\n\r\n").await;
    bench.raw("\x16\x03\x01 not http\r\n\r\n").await;
    bench.answered(3).await;
    let events = bench.events();
    let found = events.iter().any(
        |event| matches!(event, Event::Http { status: 404, path, .. } if path == "/presed.cfg"),
    );
    assert!(found, "{events:?}");
    let fetched = events.iter().any(|event| match event {
        Event::Http { peer, method, path, status, bytes, agent } => {
            (peer.as_str(), method.as_str(), path.as_str()) == ("127.0.0.1", "GET", "/preseed.cfg")
                && (*status, *bytes) == (200, PAGE.len() as u64)
                && agent == "debian-installer"
        }
        _ => false,
    });
    assert!(fetched, "{events:?}");
    assert!(!format!("{events:?}").contains("$6$"), "a password hash was logged");
}

#[tokio::test]
async fn a_build_can_wait_for_its_answer_file() {
    let bench = Bench::start().await;
    let is_preseed = |path: &str| path == "/preseed.cfg";
    let none = bench.server.wait_for(is_preseed, Duration::from_millis(50)).await;
    assert!(none.is_none());
    assert_eq!(bench.server.unfetched(), ["/preseed.cfg", "/ubuntu/meta-data"]);
    bench.raw("HEAD /preseed.cfg HTTP/1.0\r\n\r\n").await;
    let none = bench.server.wait_for(is_preseed, Duration::from_millis(50)).await;
    assert!(none.is_none(), "a HEAD fetches nothing");
    let long = Duration::from_secs(10);
    let (found, _) =
        tokio::join!(bench.server.wait_for(is_preseed, long), bench.get("/preseed.cfg"));
    assert_eq!(found.unwrap().bytes, PAGE.len() as u64);
    let past = bench.server.wait_for(is_preseed, long).await;
    assert!(past.is_some(), "what happened before counts too");
    assert_eq!(bench.server.unfetched(), ["/ubuntu/meta-data"]);
    assert_eq!(bench.server.requests().len(), 2);
}

#[tokio::test]
async fn slow_heads_are_closed_and_do_not_keep_others_out() {
    let head_time = Duration::from_millis(300);
    let bench = Bench::start_with(Bounds { connections: 2, head_time, ..Bounds::default() }).await;
    let started = Instant::now();
    let (mut one, mut two) = (bench.connect().await, bench.connect().await);
    one.write_all(b"GET /preseed.cfg HTT").await.unwrap();
    assert_eq!(bench.get("/preseed.cfg").await.0, 200);
    assert!(started.elapsed() >= head_time, "more connections than allowed were served");
    for stream in [&mut one, &mut two] {
        let mut rest = Vec::new();
        let closed = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut rest));
        assert!(closed.await.is_ok(), "a slow head is still open");
    }
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_given_up() {
    let stall = Duration::from_millis(200);
    let bench = Bench::start_with(Bounds { stall, ..Bounds::default() }).await;
    let mut stream = bench.connect().await;
    stream.write_all(b"GET /files/big.bin HTTP/1.0\r\n\r\n").await.unwrap();
    bench.answered(1).await;
    let request = bench.server.requests().remove(0);
    assert!(request.bytes < request.length && !request.is_whole(), "{request:?}");
    drop(stream);
    let (status, body) = bench.get("/files/big.bin").await;
    assert_eq!((status, body.len()), (200, 8 << 20));
}

#[tokio::test]
async fn heads_are_bounded() {
    let bench = Bench::start().await;
    let long = format!("GET /preseed.cfg HTTP/1.0\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    assert!(!bench.raw(&long).await.contains("$6$"));
    let many = format!("GET /preseed.cfg HTTP/1.0\r\n{}\r\n", "X: y\r\n".repeat(200));
    let answer = bench.raw(&many).await;
    assert!(answer.starts_with("HTTP/1.0 431") || answer.starts_with("HTTP/1.1 431"), "{answer}");
    assert_eq!(bench.get("/preseed.cfg").await.0, 200);
}

#[tokio::test]
async fn a_stop_lets_answers_end_and_closes_the_port() {
    let bench = Bench::start().await;
    let mut stream = bench.connect().await;
    stream.write_all(b"GET /files/big.bin HTTP/1.0\r\n\r\n").await.unwrap();
    let mut first = [0; 100];
    stream.read_exact(&mut first).await.unwrap();
    let idle = bench.connect().await;
    let address = bench.server.addr();
    let reading = async move {
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        rest.len()
    };
    let ((), length) = tokio::join!(bench.server.stop(), reading);
    assert!(length > (8 << 20), "the answer was cut off: {length}");
    assert!(TcpStream::connect(address).await.is_err(), "the port is still open");
    drop(idle);
}

#[tokio::test]
async fn mistakes_in_content_are_named() {
    let bench = Bench::start().await;
    let files = bench.folder.path().join("files");
    for path in ["preseed.cfg", "", "/", "/a/../b", "/a\nb", "/a\0"] {
        assert!(Content::new().page(path, "text/plain", "").is_err(), "{path:?}");
    }
    let twice = Content::new().page("/a", "text/plain", "").unwrap().page("//a", "text/plain", "");
    assert!(twice.err().unwrap().to_string().contains("same path"));
    assert!(Content::new().page("/a", "text\n", "").is_err());
    assert!(Content::new().page("/100%25 a", "text/plain", "").is_ok());
    let twice = Content::new().directory(&files).unwrap().directory(&files);
    assert!(twice.err().unwrap().to_string().contains("called files"));
    assert!(Content::new().directory(&files.join("none")).is_err());
    assert!(Content::new().directory(&files.join("a.txt")).is_err());
    let events = Events::silent();
    let foreign = Server::start("192.0.2.1".parse().unwrap(), Content::new(), &events);
    assert!(foreign.await.err().unwrap().to_string().contains("192.0.2.1"));
}

/// Runs a real client, if it is installed, and returns what it wrote.
async fn client(program: &str, arguments: &[&str]) -> Option<Vec<u8>> {
    let mut command = Command::new(program);
    command.args(arguments).env_remove("http_proxy").env_remove("HTTP_PROXY");
    match command.output().await {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{program} {arguments:?}: {said}");
            Some(output.stdout)
        }
        Err(error) => {
            eprintln!("skipped {program}: {error}");
            None
        }
    }
}

#[tokio::test]
async fn real_clients_get_what_they_ask_for() {
    let bench = Bench::start().await;
    let (page, big) = (bench.url("/preseed.cfg"), bench.url("/files/big.bin"));
    for (program, before) in [
        ("curl", &["-fsS"][..]),
        ("curl", &["-fsS", "--http1.0"]),
        ("wget", &["-q", "-O", "-"]),
        ("busybox", &["wget", "-q", "-O", "-"]),
    ] {
        let with = |url: &'static str| -> Vec<&str> { [before, &[url]].concat() };
        let (page, big) = (page.clone().leak(), big.clone().leak());
        if let Some(got) = client(program, &with(page)).await {
            assert_eq!(got, PAGE.as_bytes(), "{program}");
        }
        if let Some(got) = client(program, &with(big)).await {
            assert_eq!(got.len(), 8 << 20, "{program}");
        }
    }
    // A transfer continued by each client's own means.
    let part = bench.folder.path().join("part");
    let file = part.to_string_lossy().into_owned();
    let url = bench.url("/files/a.txt");
    for (program, arguments) in [
        ("curl", vec!["-fsS", "-C", "-", "-o", &file, &url]),
        ("busybox", vec!["wget", "-q", "-c", "-O", &file, &url]),
    ] {
        std::fs::write(&part, "0123").unwrap();
        if client(program, &arguments).await.is_some() {
            assert_eq!(std::fs::read_to_string(&part).unwrap(), "0123456789", "{program}");
        }
    }
}
