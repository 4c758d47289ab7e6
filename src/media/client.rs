// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The HTTP client: TLS with the host's certificates, the environment's proxy, bounded redirects.

use std::sync::Once;

use reqwest::redirect::Policy;
use reqwest::{Client, Url};

use super::FetchOptions;
use super::source::shown;
use crate::ui::{Failure, Outcome};

/// Most redirects followed.
const MAX_REDIRECTS: usize = 10;

/// What a redirect may do to the connection's security.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Downgrade {
    /// From https to http too: a digest known beforehand tells whether the answer is right.
    Allowed,
    /// Never from https to http: the answer itself is what is trusted.
    Refused,
}

/// Makes a client for `url`.
///
/// # Errors
///
/// TLS cannot be set up, because the host has no certificate authorities (only for https).
pub(super) fn client(options: &FetchOptions, downgrade: Downgrade, url: &Url) -> Outcome<Client> {
    static PROVIDER: Once = Once::new();
    // An error means that one is installed already, which is as good.
    PROVIDER.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
    let builder = || {
        let builder = Client::builder()
            .user_agent(concat!("imgforge/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(options.limits.connect)
            .redirect(policy(downgrade));
        if options.proxy { builder } else { builder.no_proxy() }
    };
    let built = match builder().build() {
        // Plain http must work on a host without certificate authorities.
        Err(_) if url.scheme() == "http" => builder().tls_certs_only([]).build(),
        other => other,
    };
    built.map_err(|error| {
        Failure::build("cannot set up TLS").because(error).fact("url", shown(url)).hint(
            "install the host's certificate authorities, such as `apt-get install ca-certificates`",
        )
    })
}

fn policy(downgrade: Downgrade) -> Policy {
    Policy::custom(move |attempt| {
        let from_https = attempt.previous().last().is_some_and(|url| url.scheme() == "https");
        if attempt.previous().len() > MAX_REDIRECTS {
            attempt.error(format!("more than {MAX_REDIRECTS} redirects"))
        } else if from_https && attempt.url().scheme() != "https" && downgrade == Downgrade::Refused
        {
            attempt.error("a redirect from https to http is not followed without a checksum")
        } else {
            attempt.follow()
        }
    })
}
