// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Cache, local files, sums files, offline work.

use super::mirror::{Answer, Mirror};
use super::*;
use crate::ui::Kind;

#[tokio::test]
async fn downloads_once_and_serves_every_digest_from_the_cache() {
    let (bench, body) = (Bench::new(), body(300_000));
    let served = body.clone();
    let mirror = Mirror::start(move |_| Answer::whole(served.clone())).await;
    let url = mirror.url("d/a.iso");
    let medium = bench.fetch(&[&url], sum(Algorithm::Md5, &body)).await.unwrap();
    assert_eq!(medium.origin, Origin::Downloaded);
    assert_eq!(
        (medium.sha256.as_str(), medium.bytes),
        (&*hex_of(Algorithm::Sha256, &body), 300_000)
    );
    assert_eq!(medium.digest, hex_of(Algorithm::Md5, &body));
    assert_eq!(std::fs::read(&medium.path).unwrap(), body);
    assert_eq!(bench.kept(), [format!("sha256-{}.iso", medium.sha256)]);
    assert!(bench.said().contains("md5 only"), "{}", bench.said());
    let checked = bench.progress("checking");
    for algorithm in [Algorithm::Md5, Algorithm::Sha256, Algorithm::Sha512] {
        let again = bench.fetch(&[&url], sum(algorithm, &body)).await.unwrap();
        assert_eq!((again.origin, &again.path), (Origin::Cached, &medium.path));
        assert_eq!(again.digest, hex_of(algorithm, &body));
        assert_eq!(again.url, url);
    }
    assert_eq!(mirror.count(), 1);
    assert_eq!(bench.progress("checking"), checked, "hashed again");
}

#[tokio::test]
async fn a_damaged_cache_file_is_noticed_and_replaced() {
    let (bench, body) = (Bench::new(), body(100_000));
    let served = body.clone();
    let mirror = Mirror::start(move |_| Answer::whole(served.clone())).await;
    let url = mirror.url("a.iso");
    let medium = bench.fetch(&[&url], sha256(&body)).await.unwrap();
    let modified = std::fs::metadata(&medium.path).unwrap().modified().unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&medium.path).unwrap();
    std::os::unix::fs::FileExt::write_at(&file, b"!", 500).unwrap();
    file.set_modified(modified).unwrap();
    drop(file);
    let again = bench.fetch(&[&url], sha256(&body)).await.unwrap();
    assert_eq!(again.origin, Origin::Downloaded);
    assert_eq!(std::fs::read(&again.path).unwrap(), body);
    assert!(bench.said().contains("damaged"), "{}", bench.said());
}

#[tokio::test]
async fn a_wrong_checksum_names_both_and_harms_nothing() {
    let (bench, body) = (Bench::new(), body(100_000));
    let served = body.clone();
    let mirror = Mirror::start(move |_| Answer::whole(served.clone())).await;
    let url = mirror.url("a.iso");
    let good = bench.fetch(&[&url], sha256(&body)).await.unwrap();
    let wrong = "0".repeat(64);
    let declared = Checksum::Digest { algorithm: Algorithm::Sha256, hex: wrong.clone() };
    let failure = bench.fetch(&[&url], declared).await.unwrap_err();
    let shown = failure.to_string();
    assert!(shown.contains(&wrong) && shown.contains(&good.sha256), "{shown}");
    assert_eq!(bench.kept(), [format!("sha256-{}.iso", good.sha256)]);
    assert_eq!(std::fs::read(&good.path).unwrap(), body);
    assert_eq!(mirror.count(), 2, "a wrong download is not repeated at the same address");
}

#[tokio::test]
async fn two_builds_download_once() {
    let (bench, body) = (Bench::new(), body(4_000_000));
    let served = body.clone();
    let mirror = Mirror::start(move |_| Answer::whole(served.clone())).await;
    let url = mirror.url("a.iso");
    let urls = [url.as_str()];
    let (one, two, three) = tokio::join!(
        bench.fetch(&urls, sha256(&body)),
        bench.fetch(&urls, sha256(&body)),
        bench.fetch(&urls, sha256(&body)),
    );
    let origins = [one.unwrap().origin, two.unwrap().origin, three.unwrap().origin];
    assert_eq!(origins.iter().filter(|origin| **origin == Origin::Downloaded).count(), 1);
    assert_eq!(mirror.count(), 1);
    assert!(bench.said().contains("another build"), "{}", bench.said());
    assert_eq!(bench.kept().len(), 1, "{:?}", bench.kept());
}

#[tokio::test]
async fn a_lock_left_by_a_killed_build_does_not_block_and_a_held_one_can_be_left() {
    let (bench, body) = (Bench::new(), body(1000));
    let served = body.clone();
    let mirror = Mirror::start(move |_| Answer::whole(served.clone())).await;
    std::fs::create_dir_all(bench.cache()).unwrap();
    let lock = bench.cache().join(format!("sha256-{}.lock", hex_of(Algorithm::Sha256, &body)));
    std::fs::write(&lock, "99999").unwrap();
    let held = std::fs::File::open(&lock).unwrap();
    held.lock().unwrap();
    let cancel = CancellationToken::new();
    let url = mirror.url("a.iso");
    let urls = [url.as_str()];
    let waiting = bench.fetch_until(&urls, sha256(&body), cancel.clone());
    let stop = async {
        while !bench.said().contains("process 99999") {
            tokio::task::yield_now().await;
        }
        cancel.cancel();
    };
    let (waited, ()) = tokio::join!(waiting, stop);
    assert_eq!(waited.unwrap_err().kind(), Kind::Interrupted);
    drop(held);
    bench.fetch(&urls, sha256(&body)).await.unwrap();
    assert!(!lock.exists());
}

#[tokio::test]
async fn local_files_are_used_in_place_and_hashed_once() {
    let (bench, bytes) = (Bench::new(), body(200_000));
    let path = bench.write("a b.iso", &bytes);
    let url = format!("file://{}", path.display()).replace(' ', "%20");
    let medium = bench.fetch(&[&url], sum(Algorithm::Sha512, &bytes)).await.unwrap();
    assert_eq!((&medium.path, medium.origin), (&path, Origin::InPlace));
    assert_eq!((medium.name.as_str(), medium.checked), ("a b.iso", true));
    let hashed = bench.progress("checking");
    assert!(hashed > 0);
    let plain = path.display().to_string();
    bench.fetch(&[&plain], sha256(&bytes)).await.unwrap();
    bench.fetch(&[&plain], sum(Algorithm::Sha512, &bytes)).await.unwrap();
    assert_eq!(bench.progress("checking"), hashed, "hashed again");
    assert_eq!(bench.kept(), [""; 0], "a local file was copied");

    let other = body(200_001);
    std::fs::write(&path, &other).unwrap();
    let failure = bench.fetch(&[&plain], sha256(&bytes)).await.unwrap_err();
    assert!(failure.to_string().contains("checksum is wrong"), "{failure}");
    assert_eq!(std::fs::read(&path).unwrap(), other, "a local file must never be removed");
}

#[tokio::test]
async fn local_mistakes_are_named() {
    let bench = Bench::new();
    let folder = bench.folder.path().display().to_string();
    let missing = format!("{folder}/no.iso");
    let empty = bench.write("empty.iso", b"").display().to_string();
    for (urls, word) in [
        (vec![missing.as_str()], "No such file"),
        (vec![folder.as_str()], "not a regular file"),
        (vec![empty.as_str()], "empty file"),
        (vec!["ftp://h/x"], "not supported"),
        (vec![], "names no medium"),
    ] {
        let failure = bench.fetch(&urls, Checksum::None).await.unwrap_err();
        assert!(failure.to_string().contains(word), "{word}: {failure}");
    }
    let short = Checksum::Digest { algorithm: Algorithm::Sha256, hex: "abc".into() };
    let failure = bench.fetch(&[&empty], short).await.unwrap_err();
    assert!(failure.to_string().contains("64 hexadecimal digits"), "{failure}");
}

#[tokio::test]
async fn without_checksum_it_warns_and_keeps_one_copy_per_address() {
    let bench = Bench::new();
    let mirror = Mirror::start(|asked| Answer::whole(asked.path.clone())).await;
    let (a, b) = (mirror.url("a.iso"), mirror.url("b.iso"));
    let medium = bench.fetch(&[&a], Checksum::None).await.unwrap();
    assert!(!medium.checked && bench.said().contains("not checked"));
    assert_eq!(bench.fetch(&[&b], Checksum::None).await.unwrap().origin, Origin::Downloaded);
    assert_eq!(bench.fetch(&[&a], Checksum::None).await.unwrap().origin, Origin::Cached);
    assert_eq!(mirror.count(), 2);
}

#[tokio::test]
async fn sums_files_are_read_and_remembered_for_offline_work() {
    let (mut bench, body) = (Bench::new(), body(50_000));
    let sums = format!("{}  ./a.iso\n", hex_of(Algorithm::Sha512, &body));
    let served = body.clone();
    let mirror = Mirror::start(move |asked| match asked.path.as_str() {
        "/SUMS" => Answer::whole(sums.clone()),
        "/page" => Answer::whole("<html><title>Login</title></html>"),
        "/gone" => Answer::status(404),
        _ => Answer::whole(served.clone()),
    })
    .await;
    let url = mirror.url("a.iso");
    let from = |name: &str| Checksum::File(mirror.url(name));
    bench.options.offline = true;
    let failure = bench.fetch(&[&url], from("SUMS")).await.unwrap_err();
    assert!(failure.to_string().contains("--offline"), "{failure}");
    assert_eq!(mirror.count(), 0, "offline means no request");
    bench.options.offline = false;
    for (sums, word) in [("page", "web page"), ("gone", "404")] {
        let failure = bench.fetch(&[&url], from(sums)).await.unwrap_err();
        assert!(failure.to_string().contains(word), "{failure}");
    }
    let other = mirror.url("other.iso");
    let failure = bench.fetch(&[&other], from("SUMS")).await.unwrap_err();
    assert!(failure.to_string().contains("found    a.iso"), "{failure}");
    assert!(!bench.cache().exists(), "a failed look-up left something behind");

    let medium = bench.fetch(&[&url], from("SUMS")).await.unwrap();
    assert_eq!(medium.algorithm, Algorithm::Sha512);
    bench.options.offline = true;
    let asked = mirror.count();
    let offline = bench.fetch(&[&url], from("SUMS")).await.unwrap();
    assert_eq!((offline.path, offline.origin), (medium.path, Origin::Cached));
    assert_eq!(mirror.count(), asked, "offline means no request");
    let failure = bench.fetch(&[&other], sha256(b"x")).await.unwrap_err();
    assert!(failure.to_string().contains("not in the cache"), "{failure}");
}

#[tokio::test]
async fn a_sums_file_that_is_down_is_replaced_by_memory() {
    let (bench, body) = (Bench::new(), body(5_000));
    let sums = format!("SHA256 (a.iso) = {}\n", hex_of(Algorithm::Sha256, &body));
    let served = body.clone();
    let mirror = Mirror::start(move |asked| match (asked.path.as_str(), asked.number) {
        ("/SUMS", 0) => Answer::whole(sums.clone()),
        ("/SUMS", _) => Answer::status(503),
        _ => Answer::whole(served.clone()),
    })
    .await;
    let (url, checksum) = (mirror.url("a.iso"), Checksum::File(mirror.url("SUMS")));
    bench.fetch(&[&url], checksum.clone()).await.unwrap();
    assert_eq!(bench.fetch(&[&url], checksum).await.unwrap().origin, Origin::Cached);
    assert!(bench.said().contains("digest of an earlier run"), "{}", bench.said());
}

#[tokio::test]
async fn a_cache_that_cannot_be_made_is_named() {
    let mut bench = Bench::new();
    bench.options.cache_dir = bench.write("file", b"x");
    let failure = bench.fetch(&["http://127.0.0.1:1/a.iso"], sha256(b"x")).await.unwrap_err();
    assert!(failure.to_string().contains("--cache-dir"), "{failure}");
}
