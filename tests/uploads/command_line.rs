//! The same by the command line, as an operator or a script does it: JSON out, exit codes as published.

use std::path::Path;

use wasmill_tests::versioned;

use super::{PIPELINE, done, host, processed, run, send, stage, two};

fn text(path: &Path) -> &str {
    path.to_str().expect("test folders have plain names")
}

#[tokio::test]
async fn upload_deploy_roll_back_and_look_from_a_shell() {
    let stage = stage(2).await;
    let (site, _host) = host(&stage, "shell");
    let (old, new) = two();
    let overlay = stage.path("overlay.toml");
    std::fs::write(&overlay, versioned::overlay(PIPELINE)).unwrap();

    let uploaded = done(&site, &["upload", text(&old.file)]);
    assert_eq!(uploaded["plugin"], old.plugin(), "{uploaded:#}");
    done(
        &site,
        &[
            "deploy",
            &old.plugin(),
            "--pipeline",
            PIPELINE,
            "--overlay",
            text(&overlay),
            "--yes",
        ],
    );
    let records = send(&stage, 2, 500);
    processed(&stage, &records).await;
    done(&site, &["upload", text(&new.file)]);
    done(
        &site,
        &["deploy", &new.plugin(), "--pipeline", PIPELINE, "--yes"],
    );
    let status = done(&site, &["status", PIPELINE]).to_string();
    assert!(status.contains(&new.plugin()), "{status}");
    done(&site, &["rollback", PIPELINE]);
    done(&site, &["pause", PIPELINE]);
    done(&site, &["resume", PIPELINE]);
    let history = done(&site, &["history", PIPELINE]);
    assert_eq!(
        history["revisions"].as_array().map(Vec::len),
        Some(5),
        "{history:#}"
    );
    let list = done(&site, &["list"]).to_string();
    assert!(
        list.contains(&old.plugin()) && list.contains(&new.plugin()),
        "{list}"
    );

    let (code, said) = run(
        &site,
        &["deploy", "versioned@9.9.9", "--pipeline", PIPELINE, "--yes"],
    );
    assert_eq!(code, Some(5), "{said}");
    let (code, said) = run(&site, &["upload", text(&overlay)]);
    assert!(matches!(code, Some(3 | 4)), "{code:?}: {said}");
    let (code, said) = run(&site, &["status", "nobody"]);
    assert_eq!(code, Some(5), "{said}");
    done(&site, &["remove", PIPELINE, "--yes"]);
}
