//! `upstream_tls`: what the gateway shows to upstreams, and whom it trusts there, service by service.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use weir_tests::certificates::{Authority, Certificate};
use weir_tests::upstream::Upstream;
use weir_tests::wait::until;

use crate::policies::{api, code, comes_to, proxy};
use crate::world::{Api, World, catalog};

/// An upstream for `localhost` under an authority; perhaps it wants clients' certificates of another.
async fn upstream(authority: &Authority, clients: Option<&Authority>) -> Upstream {
    let certificate = authority.issue("localhost");
    let chain = vec![CertificateDer::from_pem_slice(certificate.pem.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(certificate.key_pem.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(clients) => {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_slice(clients.pem().as_bytes()).unwrap()).unwrap();
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
            builder.with_client_cert_verifier(verifier)
        }
    };
    Upstream::start_tls(builder.with_single_cert(chain, key).unwrap()).await
}

/// Writes a certificate and an authority, and makes a table of gateway.toml of them.
fn identity(
    folder: &Path,
    name: &str,
    certificate: Option<&Certificate>,
    trusted: Option<&Authority>,
) -> String {
    let put = |kind: &str, pem: &str| {
        let file = folder.join(format!("{name}-{kind}.pem"));
        std::fs::write(&file, pem).unwrap();
        format!("{kind}_file = \"{}\"\n", file.display())
    };
    let own = certificate.map(|own| put("certificate", &own.pem) + &put("key", &own.key_pem));
    let trusted = trusted.map(|authority| put("ca", &authority.pem()));
    format!("[[upstream_tls]]\nname = \"{name}\"\n{}{}", own.unwrap_or_default(), trusted.unwrap_or_default())
}

fn of(identity: &str) -> String {
    proxy(&format!("{{ policy = \"upstream_tls\", identity = \"{identity}\" }}"))
}

const AWAY: &str = "502 upstream_unreachable";

#[tokio::test(flavor = "multi_thread")]
async fn upstreams_see_who_calls() {
    let (theirs, ours, strange) = (Authority::new(), Authority::new(), Authority::new());
    let (strict, open) = (upstream(&theirs, Some(&ours)).await, upstream(&theirs, None).await);
    let url = |upstream: &Upstream| format!("https://localhost:{}", upstream.address().port());
    let (strict_url, open_url) = (url(&strict), url(&open));
    let folder = tempfile::tempdir().unwrap();
    let (own, forged) = (ours.issue("gateway.test"), strange.issue("gateway.test"));
    let lines: String = [
        ("full", Some(&own), Some(&theirs)),
        ("trusting", None, Some(&theirs)),
        ("forged", Some(&forged), Some(&theirs)),
        ("wary", Some(&own), Some(&strange)),
        ("public", Some(&own), None),
    ]
    .map(|(name, certificate, trusted)| identity(folder.path(), name, certificate, trusted))
    .concat();
    let [full, trusting, forged, wary, public] = ["full", "trusting", "forged", "wary", "public"].map(of);
    let to = |id, proxy, backend| Api { backend, ..api(id, proxy) };
    let apis = [
        to("full", &full, &strict_url),
        to("full-open", &full, &open_url),
        to("trusting", &trusting, &strict_url),
        to("trusting-open", &trusting, &open_url),
        to("forged", &forged, &strict_url),
        to("wary", &wary, &strict_url),
        to("public", &public, &strict_url),
        to("without", "", &strict_url),
        to("without-open", "", &open_url),
    ];
    let world = World::start_with(&apis, &lines).await;
    // Twice: connections that are kept open are nobody else's.
    for _ in 0..2 {
        for (service, expected) in [
            ("full", "200"),
            ("full-open", "200"),
            ("trusting", ""),
            ("trusting-open", "200"),
            ("forged", ""),
            ("wary", AWAY),
            ("public", AWAY),
            ("without", AWAY),
            ("without-open", AWAY),
        ] {
            let sent = strict.received() + open.received();
            let found = code(&world, &format!("GET {service}.test/?user_key={{key}}"));
            // Who is refused for his certificate may learn it when the connection is made, or by the answer.
            let refused = expected.is_empty() && found.starts_with("502 upstream_");
            assert!(refused || found == expected, "{service}: {found}");
            assert_eq!(strict.received() + open.received() - sent, u64::from(expected == "200"), "{service}");
        }
    }
    comes_to(&world, "full", "app", 2).await;
    unknown_identities(&world, &apis);
    world.finish();
}

/// A service that names what the gateway does not have stays as it was; others change.
fn unknown_identities(world: &World, apis: &[Api<'_>]) {
    let unknown = of("nobody");
    let mut apis = apis.to_vec();
    let renamed = "[\"renamed.test\"]";
    (apis[0].proxy, apis[0].hosts) = (&unknown, renamed);
    apis.push(Api { id: "fresh", proxy: &unknown, ..crate::world::PLAIN });
    apis.push(api("news", ""));
    world.stack.put_catalog(&catalog(2, &apis));
    until("the other change", || (world.call("GET news.test/?user_key={key}").status == 200).then_some(()));
    world.check("GET full.test/?user_key={key}", "200");
    world.check("GET renamed.test/?user_key={key}", "404");
    world.check("GET fresh.test/?user_key={key}", "404");
    let log = world.stack.gateways[0].log();
    assert!(log.contains("nobody") && log.contains("a service cannot be served"), "{log}");
}
