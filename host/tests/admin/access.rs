//! Who is let in.

use std::io::{Read as _, Write as _};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use wasmill::admin::serve;
use wasmill::config::{HttpConfig, Role, TlsFiles};

use crate::client::{Answer, Host, config, token};
use crate::fake::Fake;

fn with_tokens() -> HttpConfig {
    let tokens = [
        ("eyes", Role::Read),
        ("hands", Role::Operate),
        ("ci", Role::Deploy),
    ];
    HttpConfig {
        tokens: tokens.map(|(name, role)| token(name, role)).into(),
        ..config()
    }
}

#[test]
fn each_role_may_what_it_says_and_no_more() {
    let host = Host::start(&with_tokens());
    let requests = [
        ("GET /v1/pipelines", Role::Read),
        ("GET /v1/plugins", Role::Read),
        ("GET /v1/host", Role::Read),
        ("GET /metrics", Role::Read),
        ("GET /v1/pipelines/a/dead-letters", Role::Read),
        ("GET /v1/pipelines/a/dead-letters/0/7", Role::Read),
        ("GET /v1/pipelines/a/dead-letters/0/7/bundle", Role::Operate),
        ("POST /v1/pipelines/a/dead-letters/retry", Role::Operate),
        ("POST /v1/pipelines/a/dead-letters/drop", Role::Operate),
        ("GET /v1/audit", Role::Operate),
        ("POST /v1/pipelines/a/plan", Role::Operate),
        ("POST /v1/pipelines/a/pause", Role::Operate),
        ("POST /v1/pipelines/a/resume", Role::Operate),
        ("POST /v1/pipelines/a/raise", Role::Operate),
        ("POST /v1/pipelines/a/rollback", Role::Operate),
        ("PUT /v1/plugins", Role::Deploy),
        ("PUT /v1/pipelines/a/deployment", Role::Deploy),
        ("POST /v1/pipelines/a/promote", Role::Deploy),
        ("DELETE /v1/pipelines/a", Role::Deploy),
    ];
    for (line, needed) in requests {
        for (name, role) in [
            ("eyes", Role::Read),
            ("hands", Role::Operate),
            ("ci", Role::Deploy),
        ] {
            let answer = host.ask(line, &[&format!("authorization: bearer {name}-secret")], "");
            if role >= needed {
                assert!(
                    ![401, 403].contains(&answer.status),
                    "{name} {line}: {answer:?}"
                );
            } else {
                let problem = answer.is(403, "role");
                let detail = problem["detail"].as_str().unwrap();
                assert!(detail.contains(&format!("this needs {needed}")), "{detail}");
            }
        }
        let nobody = host.ask(line, &[], "");
        nobody.is(401, "token-missing");
        assert!(
            nobody.head.contains("www-authenticate: bearer"),
            "{nobody:?}"
        );
    }
    for (header, code) in [
        ("authorization: Bearer wrong", "token-unknown"),
        ("authorization: Bearer ", "token-scheme"),
        ("authorization: Basic Y2k6c2VjcmV0", "token-scheme"),
        ("authorization: ci-secret", "token-scheme"),
    ] {
        host.ask("GET /v1/host", &[header], "").is(401, code);
    }
    for open in ["GET /live", "GET /ready", "GET /openapi.json"] {
        assert_eq!(host.ask(open, &[], "").status, 200, "{open}");
    }
    host.ask("GET /v1/nothing", &[], "").is(404, "not-found");
    // At most a few a second are audited, and the first one always is.
    let denied = host.fake.denied.lock().clone();
    assert_eq!(denied[0][..2], ["127.0.0.1", "GET /v1/pipelines"]);
    assert!(denied.len() < 20, "{}", denied.len());
}

#[test]
fn a_denied_role_is_audited_by_the_tokens_name() {
    let host = Host::start(&with_tokens());
    host.ask(
        "DELETE /v1/pipelines/a",
        &["authorization: Bearer eyes-secret"],
        "",
    )
    .is(403, "role");
    let denied = host.fake.denied.lock().clone();
    assert_eq!(denied.len(), 1);
    assert_eq!(denied[0][..2], ["eyes", "DELETE /v1/pipelines/a"]);
    assert!(denied[0][2].contains("deploy"), "{denied:?}");
}

#[test]
fn a_strangers_flood_does_not_hide_a_holders_denial() {
    let host = Host::start(&with_tokens());
    for _ in 0..100 {
        host.ask("GET /v1/plugins", &[], "")
            .is(401, "token-missing");
    }
    for name in ["eyes", "hands"] {
        let header = format!("authorization: Bearer {name}-secret");
        host.ask("DELETE /v1/pipelines/a", &[&header], "")
            .is(403, "role");
    }
    let denied = host.fake.denied.lock().clone();
    let by = |name: &str| denied.iter().filter(|one| one[0] == name).count();
    assert_eq!((by("eyes"), by("hands")), (1, 1), "{denied:?}");
    assert!((1..20).contains(&by("127.0.0.1")), "{denied:?}");
}

#[test]
fn web_pages_do_not_reach_a_host_without_tokens() {
    let host = Host::start(&config());
    let with = |name: &str, header: &str| {
        let text =
            format!("GET /v1/host HTTP/1.1\r\nhost: {name}\r\nconnection: close\r\n{header}\r\n");
        host.raw(text.as_bytes())
    };
    for name in ["localhost", "127.0.0.1:8650", "[::1]:8650"] {
        assert_eq!(with(name, "").status, 200, "{name}");
    }
    for name in [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example:80",
        "10.0.0.1",
        "",
    ] {
        with(name, "").is(403, "foreign-host");
    }
    host.raw(b"GET /v1/host HTTP/1.0\r\n\r\n")
        .is(403, "foreign-host");
    let through = host.raw(
        b"GET http://evil.example/v1/host HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
    );
    through.is(403, "foreign-host");
    assert_eq!(
        with("localhost", "origin: http://localhost:3000\r\n").status,
        200
    );
    for origin in [
        "https://evil.example",
        "null",
        "",
        "http://localhost.evil.example",
    ] {
        with("localhost", &format!("origin: {origin}\r\n")).is(403, "foreign-origin");
    }
    let open = Host::start(&with_tokens());
    let text = "GET /v1/host HTTP/1.1\r\nhost: wasmill.example\r\nconnection: close\r\nauthorization: Bearer eyes-secret\r\n\r\n";
    assert_eq!(open.raw(text.as_bytes()).status, 200);
}

#[test]
fn tls_is_spoken_and_plain_http_is_not() {
    let file = |name: &str| {
        std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/admin/tls")
            .join(name)
    };
    let tls = TlsFiles {
        certificate: file("certificate.pem"),
        key: file("key.pem"),
    };
    let host = Host::start(&HttpConfig {
        tls: Some(tls.clone()),
        ..with_tokens()
    });
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(&tls.certificate).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let mut session = rustls::ClientConnection::new(Arc::new(client), name).unwrap();
    let mut socket = host.connect();
    let mut stream = rustls::Stream::new(&mut session, &mut socket);
    let request = "GET /v1/host HTTP/1.1\r\nhost: a\r\nconnection: close\r\nauthorization: Bearer eyes-secret\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).ok();
    assert_eq!(Answer::parse(&bytes).status, 200);
    assert_eq!(
        host.ask("GET /live", &[], "").status,
        0,
        "plain HTTP was answered"
    );

    let folder = tempfile::tempdir().unwrap();
    let swapped = TlsFiles {
        certificate: tls.key.clone(),
        key: tls.certificate.clone(),
    };
    let absent = TlsFiles {
        key: file("absent.pem"),
        ..tls
    };
    for (files, named) in [(swapped, "key.pem"), (absent, "absent.pem")] {
        let config = HttpConfig {
            tls: Some(files),
            ..config()
        };
        let error = serve(&config, folder.path(), Fake::new()).unwrap_err();
        assert!(error.to_string().contains(named), "{error}");
        assert!(error.hint_text().is_some());
    }
}

#[test]
fn an_address_that_is_taken_says_so() {
    let host = Host::start(&config());
    let taken = HttpConfig {
        listen: host.addr(),
        ..config()
    };
    let error = serve(&taken, host.folder(), Fake::new()).unwrap_err();
    assert!(
        error.to_string().contains(&host.addr().to_string()),
        "{error}"
    );
}
