// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Waiting for the login.

use std::io::Write;
use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use super::*;
use crate::ui::{Event, Failure, Kind};

const LIMIT: Duration = Duration::from_secs(20);

fn stages(list: &Arc<Mutex<Vec<Event>>>) -> Vec<String> {
    list.lock()
        .unwrap()
        .iter()
        .filter_map(|event| match event {
            Event::Waiting { what, .. } => Some(what.clone()),
            _ => None,
        })
        .collect()
}

fn fact<'a>(failure: &'a Failure, label: &str) -> &'a str {
    &failure.facts().iter().find(|(l, _)| l == label).unwrap().1
}

#[tokio::test]
async fn key_then_password() {
    let mut setup = Setup::new();
    setup.password = Some(random_password());
    let server = Server::start(&setup);
    let mut wait = wait_for(server.address, Some(BuildKey::generate("unknown").unwrap()));
    wait.login.password = setup.password.clone();
    let session = connect(&wait, LIMIT, &Events::silent()).await.unwrap();
    assert!(session.capture(&Command::new("id -u"), 100).await.unwrap().text() == "0");
}

#[tokio::test]
async fn refusals_are_fatal_after_a_while_and_name_what_the_server_offers() {
    let server = Server::start(&Setup::new());
    let mut wait = wait_for(server.address, Some(BuildKey::generate("unknown").unwrap()));
    wait.login.password = Some(random_password());
    let failure = connect(&wait, LIMIT, &Events::silent()).await.unwrap_err();
    assert!(failure.summary().contains("refused the login 3 times"), "{failure}");
    assert!(
        fact(&failure, "waited").contains("tried key, the server offers publickey"),
        "{failure}"
    );
    assert!(failure.hints()[0].contains("SSHPublicKey"), "{failure}");
    assert!(wait.keys.fingerprint().is_none(), "a server that refuses us is not trusted");
}

#[tokio::test]
async fn waits_through_every_stage_until_the_server_is_up() {
    let key = BuildKey::generate("test").unwrap();
    let mut setup = Setup::new();
    setup.authorized = Some(key.public_line().to_owned());
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, setup.port));
    let (events, list) = Events::recorded();
    let seen = Arc::clone(&list);
    let until = move |text: &str| {
        let start = Instant::now();
        while !stages(&seen).iter().any(|stage| stage.contains(text)) {
            assert!(start.elapsed() < LIMIT, "never `{text}`: {:?}", stages(&seen));
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    let guest = std::thread::spawn(move || {
        until("nothing listens (connection refused)");
        // A port forward with nothing behind it: takes the connection and drops it.
        let listener = TcpListener::bind(address).unwrap();
        drop(listener.accept().unwrap());
        until("port is closed in the guest");
        listener.accept().unwrap().0.write_all(b"220 mail ready\r\n").unwrap();
        until("`220 mail ready` instead of SSH");
        listener.accept().unwrap().0.write_all(b"SSH-2.0-dies\r\n").unwrap();
        until("then hangs up");
        drop(listener);
        Server::start(&setup)
    });
    let session = connect(&wait_for(address, Some(key)), LIMIT, &events).await.unwrap();
    assert!(session.run(&Command::new("true"), "x", &events).await.unwrap().good());
    drop(guest.join().unwrap());
}

#[tokio::test]
async fn no_server_at_all_is_a_timeout_with_a_reason() {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let limit = Duration::from_millis(600);
    let failure = connect(&wait_for(address, None), limit, &Events::silent()).await.unwrap_err();
    assert!(failure.summary().contains("no SSH login within 0.6 s"), "{failure}");
    assert!(fact(&failure, "waited").contains("nothing listens"), "{failure}");
    assert_eq!(failure.kind(), Kind::Build);
}

/// A network in user mode may complete the connection to the guest with the first bytes only.
#[tokio::test]
async fn the_client_speaks_first() {
    let key = BuildKey::generate("test").unwrap();
    let mut setup = Setup::new();
    setup.authorized = Some(key.public_line().to_owned());
    let server = Server::start(&setup);
    let network = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = network.local_addr().unwrap();
    let behind = server.address;
    tokio::spawn(async move {
        let (mut near, _) = network.accept().await.unwrap();
        near.readable().await.unwrap();
        assert!(near.peek(&mut [0; 4]).await.unwrap() > 0);
        let mut far = tokio::net::TcpStream::connect(behind).await.unwrap();
        tokio::io::copy_bidirectional(&mut near, &mut far).await.unwrap_or_default();
    });
    let session = connect(&wait_for(address, Some(key)), LIMIT, &Events::silent()).await.unwrap();
    assert!(session.capture(&Command::new("id -u"), 100).await.unwrap().text() == "0");
}

#[tokio::test]
async fn a_silent_port_does_not_outlive_the_deadline() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let wait = wait_for(listener.local_addr().unwrap(), None);
    let start = Instant::now();
    let failure = connect(&wait, Duration::from_millis(500), &Events::silent()).await.unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(5));
    assert!(fact(&failure, "waited").contains("port is closed"), "{failure}");
}

#[tokio::test]
async fn a_changed_host_key_is_an_error_but_the_installers_is_waited_out() {
    let key = BuildKey::generate("test").unwrap();
    let mut setup = Setup::new();
    setup.authorized = Some(key.public_line().to_owned());
    let installer = Server::start(&setup);
    let wait = wait_for(installer.address, Some(key));
    let session = connect(&wait, LIMIT, &Events::silent()).await.unwrap();
    session.close().await;
    drop(installer);

    setup.host_key = BuildKey::generate("other").unwrap();
    let target = Server::start(&setup);
    let failure = connect(&wait, LIMIT, &Events::silent()).await.unwrap_err();
    assert!(failure.summary().contains("host key changed from SHA256:"), "{failure}");

    wait.keys.cross_to_target();
    let session = connect(&wait, LIMIT, &Events::silent()).await.unwrap();
    session.close().await;
    drop(target);

    let wait = Wait { keys: HostKeys::new(), ..wait };
    let shown = russh::keys::PublicKey::from_openssh(setup.host_key.public_line()).unwrap();
    wait.keys.add_installer(shown);
    let again = Server::start(&setup);
    let failure = connect(&wait, Duration::from_secs(2), &Events::silent()).await.unwrap_err();
    assert!(fact(&failure, "waited").contains("installer's SSH server"), "{failure}");
    assert!(failure.hints()[0].contains("never left the installer"), "{failure}");
    drop(again);
}

#[tokio::test]
async fn death_of_the_machine_and_cancel_end_the_wait_at_once() {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let (say, death) = watch::channel(None);
    let cancel = CancellationToken::new();
    let mut wait = wait_for(address, None);
    wait.lifeline = Lifeline::new(cancel.clone(), death);
    let (events, list) = Events::recorded();
    let start = Instant::now();
    let (result, ()) = tokio::join!(connect(&wait, LIMIT, &events), async {
        while stages(&list).len() < 2 {
            tokio::task::yield_now().await;
        }
        say.send(Some("triple fault".into())).unwrap();
    });
    let failure = result.unwrap_err();
    assert!(failure.summary().contains("triple fault"), "{failure}");
    assert!(fact(&failure, "waited").contains("nothing listens"), "{failure}");
    assert!(start.elapsed() < Duration::from_secs(5));
    cancel.cancel();
    let failure = connect(&wait, LIMIT, &events).await.unwrap_err();
    assert_eq!(failure.kind(), Kind::Interrupted);
}
