// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Transfers that break, stall, lie and go on.

use std::time::Instant;

use super::mirror::{Answer, End, Mirror};
use super::*;
use crate::media::cache::Watch;
use crate::media::client::{Downgrade, client};
use crate::media::download::{Job, Stop};
use crate::ui::Kind;

#[tokio::test]
async fn a_broken_transfer_goes_on_where_it_ended() {
    let (bench, body) = (Bench::impatient(), body(500_000));
    let served = body.clone();
    let mirror = Mirror::start(move |asked| {
        let answer = Answer::ranged(&served, asked).with("etag", "\"v1\"");
        match asked.number {
            0 => answer.cut(200_000, End::Stalls),
            1 => answer.cut(100_000, End::Breaks),
            _ => answer,
        }
    })
    .await;
    let medium = bench.fetch(&[&mirror.url("a.iso")], Checksum::None).await.unwrap();
    assert_eq!(std::fs::read(medium.path).unwrap(), body);
    let asked = mirror.asked.lock().unwrap();
    assert_eq!(asked.len(), 3);
    assert_eq!(asked[1].range.as_deref(), Some("bytes=200000-"));
    assert_eq!(asked[1].if_range.as_deref(), Some("\"v1\""));
    // What the server had not sent when it broke off is lost.
    assert!(asked[2].range.is_some());
}

#[tokio::test]
async fn a_server_that_ignores_ranges_starts_anew() {
    let (bench, body) = (Bench::new(), body(400_000));
    let served = body.clone();
    let mirror = Mirror::start(move |asked| match asked.number {
        0 => Answer::whole(served.clone()).cut(250_000, End::Breaks),
        _ => Answer::whole(served.clone()),
    })
    .await;
    let medium = bench.fetch(&[&mirror.url("a.iso")], sha256(&body)).await.unwrap();
    assert_eq!(std::fs::read(medium.path).unwrap(), body);
    assert!(mirror.asked.lock().unwrap()[1].range.is_some());
}

#[tokio::test]
async fn a_file_that_changed_on_the_server_is_not_mixed() {
    let (bench, old, new) = (Bench::new(), body(300_000), body(300_000).slice(7..));
    let served = new.clone();
    let mirror = Mirror::start(move |asked| match asked.number {
        0 => Answer::whole(old.clone()).cut(150_000, End::Breaks),
        // This server ignores If-Range.
        _ => Answer::ranged(&served, asked),
    })
    .await;
    let medium = bench.fetch(&[&mirror.url("a.iso")], sha256(&new)).await.unwrap();
    assert_eq!(std::fs::read(medium.path).unwrap(), new);
}

#[tokio::test]
async fn a_spoilt_part_costs_one_more_download() {
    let (bench, body) = (Bench::new(), body(300_000));
    let served = body.clone();
    let mirror = Mirror::start(move |asked| Answer::ranged(&served, asked)).await;
    std::fs::create_dir_all(bench.cache()).unwrap();
    let part = bench.cache().join(format!("sha256-{}.part", hex_of(Algorithm::Sha256, &body)));
    std::fs::write(&part, vec![0; 100_000]).unwrap();
    let medium = bench.fetch(&[&mirror.url("a.iso")], sha256(&body)).await.unwrap();
    assert_eq!(std::fs::read(medium.path).unwrap(), body);
    assert_eq!(mirror.count(), 2);
    assert!(bench.said().contains("starts anew"), "{}", bench.said());
}

#[tokio::test]
async fn a_part_that_is_whole_needs_no_more_bytes() {
    let (bench, body) = (Bench::new(), body(100_000));
    let served = body.clone();
    let mirror = Mirror::start(move |asked| Answer::ranged(&served, asked)).await;
    std::fs::create_dir_all(bench.cache()).unwrap();
    let part = bench.cache().join(format!("sha256-{}.part", hex_of(Algorithm::Sha256, &body)));
    std::fs::write(&part, &body).unwrap();
    bench.fetch(&[&mirror.url("a.iso")], sha256(&body)).await.unwrap();
    assert_eq!(mirror.count(), 1);
}

#[tokio::test]
async fn another_mirror_continues_what_the_first_began() {
    let (bench, body) = (Bench::impatient(), body(500_000));
    let (first, second) = (body.clone(), body.clone());
    let dying = Mirror::start(move |asked| match asked.number {
        0 => Answer::ranged(&first, asked).cut(300_000, End::Stalls),
        _ => Answer::status(404),
    })
    .await;
    let mirror = Mirror::start(move |asked| Answer::ranged(&second, asked)).await;
    let urls = [dying.url("a.iso"), mirror.url("a.iso")];
    let medium = bench.fetch(&[&urls[0], &urls[1]], sha256(&body)).await.unwrap();
    assert_eq!(std::fs::read(medium.path).unwrap(), body);
    assert_eq!(medium.url, urls[1]);
    assert_eq!(mirror.asked.lock().unwrap()[0].range.as_deref(), Some("bytes=300000-"));
    assert!(bench.said().contains("the next address is tried"), "{}", bench.said());
}

#[tokio::test]
async fn a_stall_ends_after_its_limit_not_after_a_total_time() {
    let bench = Bench::impatient();
    let mirror = Mirror::start(|_| Answer::whole(body(100)).cut(50, End::Stalls)).await;
    let started = Instant::now();
    let failure = bench.fetch(&[&mirror.url("a.iso")], sha256(b"x")).await.unwrap_err();
    assert!(failure.to_string().contains("sent nothing for 0.5 s"), "{failure}");
    assert!(failure.to_string().contains("attempts 4"), "{failure}");
    assert_eq!(mirror.count(), 4);
    assert!(started.elapsed() < Duration::from_secs(10));
    assert_eq!(bench.kept(), [""; 0]);
}

#[tokio::test]
async fn each_address_tells_why_it_failed() {
    let bench = Bench::new();
    let mirror = Mirror::start(|asked| match asked.path.as_str() {
        "/html.iso" => Answer::whole("\n<!DOCTYPE html><html><title>Please log in</title></html>"),
        "/empty.iso" => Answer::whole(""),
        "/busy.iso" => Answer::status(503),
        _ => Answer::status(404),
    })
    .await;
    let closed = "http://127.0.0.1:1/closed.iso";
    let names = ["html.iso", "empty.iso", "busy.iso", "gone.iso"];
    let mut urls: Vec<String> = names.iter().map(|name| mirror.url(name)).collect();
    urls.push(closed.to_owned());
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    let failure = bench.fetch(&urls, sha256(b"x")).await.unwrap_err();
    let shown = failure.to_string();
    for word in [
        "none of 5 addresses gives html.iso",
        "a web page",
        "Please log in",
        "an empty file",
        "503",
        "404",
        "cannot reach the server",
        "refused",
        closed,
    ] {
        assert!(shown.contains(word), "{word}: {shown}");
    }
    let busy = mirror.asked.lock().unwrap().iter().filter(|a| a.path == "/busy.iso").count();
    assert_eq!((busy, mirror.count()), (4, 7), "only what may pass is tried again");
    assert_eq!(bench.kept(), [""; 0]);
}

#[tokio::test]
async fn a_server_that_recovers_is_waited_for() {
    let (bench, body) = (Bench::new(), body(1000));
    let served = body.clone();
    let mirror = Mirror::start(move |asked| match asked.number {
        0 => Answer::status(503).with("retry-after", "0"),
        1 => Answer::status(429),
        _ => Answer::whole(served.clone()),
    })
    .await;
    bench.fetch(&[&mirror.url("a.iso")], sha256(&body)).await.unwrap();
    assert_eq!(mirror.count(), 3);
}

#[tokio::test]
async fn redirects_are_followed_but_not_for_ever() {
    let (bench, body) = (Bench::new(), body(1000));
    let served = body.clone();
    let mirror = Mirror::start(move |asked| match asked.path.as_str() {
        "/a.iso" => Answer::redirect("/b.iso"),
        "/b.iso" => Answer::whole(served.clone()),
        path => Answer::redirect(&format!("{path}x")),
    })
    .await;
    bench.fetch(&[&mirror.url("a.iso")], sha256(&body)).await.unwrap();
    let before = mirror.count();
    let failure = bench.fetch(&[&mirror.url("loop")], sha256(b"x")).await.unwrap_err();
    assert!(failure.to_string().contains("more than 10 redirects"), "{failure}");
    assert_eq!(mirror.count() - before, 11);
}

#[tokio::test]
async fn a_cancelled_download_is_continued_by_the_next_run() {
    let (bench, body) = (Bench::new(), body(3_000_000));
    let served = body.clone();
    let mirror = Mirror::start(move |asked| match asked.number {
        0 => Answer::ranged(&served, asked).cut(2_000_000, End::Stalls),
        _ => Answer::ranged(&served, asked),
    })
    .await;
    let (cancel, url) = (CancellationToken::new(), mirror.url("a.iso"));
    let urls = [url.as_str()];
    let stop = async {
        while bench.progress("downloading") == 0 {
            tokio::task::yield_now().await;
        }
        cancel.cancel();
    };
    let (stopped, ()) = tokio::join!(bench.fetch_until(&urls, sha256(&body), cancel.clone()), stop);
    assert_eq!(stopped.unwrap_err().kind(), Kind::Interrupted);
    let kept = bench.kept();
    assert!(kept.len() == 2 && kept[0].ends_with(".part"), "{kept:?}");
    let medium = bench.fetch(&urls, sha256(&body)).await.unwrap();
    assert_eq!(std::fs::read(medium.path).unwrap(), body);
    assert!(mirror.asked.lock().unwrap()[1].range.is_some());
    assert_eq!(bench.kept().len(), 1);
}

#[tokio::test]
async fn what_cannot_fit_is_refused_before_it_is_sent() {
    let mut bench = Bench::new();
    let mirror = Mirror::start(|_| Answer {
        headers: vec![("content-length", (1_u64 << 60).to_string())],
        end: End::Stalls,
        ..Answer::whole(body(600))
    })
    .await;
    let url = mirror.url("a.iso");
    let failure = bench.fetch(&[&url], sha256(b"x")).await.unwrap_err();
    assert!(failure.to_string().contains("too large"), "{failure}");
    bench.options.limits.max_bytes = u64::MAX;
    let shown = bench.fetch(&[&url], sha256(b"x")).await.unwrap_err().to_string();
    assert!(shown.contains("no room") && shown.contains("1099511627776 MiB"), "{shown}");
    assert!(shown.contains(&*bench.cache().to_string_lossy()), "{shown}");
    assert_eq!(bench.kept(), [""; 0]);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_disk_that_fills_up_is_named() {
    let (bench, token) = (Bench::new(), CancellationToken::new());
    let large = body(3_000_000);
    let mirror = Mirror::start(move |_| Answer::whole(large.clone())).await;
    let part = bench.folder.path().join("x.part");
    std::os::unix::fs::symlink("/dev/full", &part).unwrap();
    let url = mirror.url("a.iso").parse().unwrap();
    let job = Job {
        client: &client(&bench.options, Downgrade::Allowed, &url).unwrap(),
        url: &url,
        part: &part,
        limits: &bench.options.limits,
        watch: Watch { name: "a.iso", events: &bench.events, cancel: &token },
        digest_known: true,
    };
    let Err(Stop::Run(failure)) = job.run().await else { panic!("the disk was not full") };
    let shown = failure.to_string();
    assert!(shown.contains("no room for a.iso") && shown.contains("needed"), "{shown}");
}

#[tokio::test]
async fn the_environments_proxy_is_used() {
    let mirror = Mirror::start(|asked| Answer::whole(asked.path.clone())).await;
    let output = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "media::tests::transfer::child_behind_a_proxy", "--ignored"])
        .env("http_proxy", &mirror.base)
        .env_remove("no_proxy")
        .env_remove("NO_PROXY")
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let asked = mirror.asked.lock().unwrap();
    assert_eq!(asked[0].path, "http://mirror.invalid/a.iso");
}

#[tokio::test]
#[ignore = "run by another test with a proxy in its environment"]
async fn child_behind_a_proxy() {
    let mut bench = Bench::new();
    bench.options.proxy = true;
    let url = "http://mirror.invalid/a.iso";
    let medium = bench.fetch(&[url], sha256(url.as_bytes())).await.unwrap();
    assert_eq!(medium.bytes, url.len() as u64);
}

#[tokio::test]
async fn a_killed_build_leaves_no_lock_and_its_part_is_continued() {
    let (bench, body) = (Bench::new(), body(3_000_000));
    let served = body.clone();
    let mirror = Mirror::start(move |asked| match asked.number {
        0 => Answer::ranged(&served, asked).cut(2_500_000, End::Stalls),
        _ => Answer::ranged(&served, asked),
    })
    .await;
    let url = mirror.url("a.iso");
    let mut child = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "media::tests::transfer::child_to_be_killed", "--ignored"])
        .env("IMGFORGE_TEST_URL", &url)
        .env("IMGFORGE_TEST_CACHE", &bench.options.cache_dir)
        .env("IMGFORGE_TEST_SHA256", hex_of(Algorithm::Sha256, &body))
        .stdout(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let part = bench.cache().join(format!("sha256-{}.part", hex_of(Algorithm::Sha256, &body)));
    let begun = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(10));
        while std::fs::metadata(&part).map_or(0, |metadata| metadata.len()) < 1_000_000 {
            ticks.tick().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), begun).await.unwrap();
    let urls = [url.as_str()];
    let waiting = bench.fetch(&urls, sha256(&body));
    let kill = async {
        while !bench.said().contains("another build") {
            tokio::task::yield_now().await;
        }
        child.kill().await.unwrap();
    };
    let (medium, ()) = tokio::join!(waiting, kill);
    assert_eq!(std::fs::read(medium.unwrap().path).unwrap(), body);
    assert!(mirror.asked.lock().unwrap()[1].range.is_some(), "the part was not continued");
    assert_eq!(bench.kept().len(), 1, "{:?}", bench.kept());
}

#[tokio::test]
#[ignore = "run by another test, which kills it"]
async fn child_to_be_killed() {
    let of = |name: &str| std::env::var(name).unwrap();
    let mut bench = Bench::new();
    bench.options.cache_dir = of("IMGFORGE_TEST_CACHE").into();
    bench.options.limits.stall = Duration::from_secs(600);
    let hex = of("IMGFORGE_TEST_SHA256");
    let checksum = Checksum::Digest { algorithm: Algorithm::Sha256, hex };
    let _ = bench.fetch(&[&of("IMGFORGE_TEST_URL")], checksum).await;
}
