//! A host that can be talked to and comes back: its own folder, config, id and port, whatever happens to the process.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::api::Api;
use crate::artifact;
use crate::host::Host;
use crate::stage::Stage;

/// How long a host may take until it is ready, on a busy machine and with nothing cached.
const READY: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Clone, Debug)]
pub struct Site {
    /// Its `host.id`.
    pub id: String,
    /// Its API.
    pub api: Api,
    port: u16,
    config: PathBuf,
}

/// What is said about a site beside the stage it is on.
#[derive(Clone, Debug)]
pub struct Plot {
    /// `host.id`, and the name of its folder.
    pub id: String,
    /// The topic of the control log.
    pub control: String,
    /// Its cache; a folder of its own where nothing else is said, since a host remembers there which control log it
    /// has followed.
    pub cache: Option<PathBuf>,
    /// Further lines of `[http]`; tests ask more often than clients should.
    pub http: String,
    /// Further sections.
    pub more: String,
}

impl Plot {
    /// With the control log's default topic.
    pub fn new(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            control: "wasmill.control".to_owned(),
            cache: None,
            http: "limits.requests_per_second = 100000".to_owned(),
            more: String::new(),
        }
    }
}

impl Site {
    /// Writes the config of a host with an API and a control log; starts nothing.
    pub fn new(stage: &Stage, plot: &Plot) -> Self {
        let folder = stage.path(&plot.id);
        std::fs::create_dir_all(&folder).unwrap();
        let port = free_port();
        let shared = format!("{:?}", artifact::compiled_cache().display().to_string());
        let cache = plot.cache.clone().unwrap_or_else(|| folder.join("cache"));
        let own = format!("{:?}", cache.display().to_string());
        let connections = stage
            .connections()
            .replace("id = \"test-host\"", &format!("id = {:?}", plot.id))
            .replace(&shared, &own);
        let config = folder.join("wasmill.toml");
        let text = format!(
            "{connections}\n[http]\nlisten = \"127.0.0.1:{port}\"\n{}\n\
             [control]\nkafka = \"main\"\ntopic = {:?}\nreplication = 1\n\n{}\n",
            plot.http, plot.control, plot.more
        );
        std::fs::write(&config, text).unwrap();
        Self {
            id: plot.id.clone(),
            api: Api::new(port),
            port,
            config,
        }
    }

    /// Starts it; it is not ready yet.
    pub fn start(&self) -> Host {
        Host::start(&self.config)
    }

    /// Starts it and waits until it is ready; says how long that took.
    pub fn up(&self) -> (Host, Duration) {
        let start = Instant::now();
        let mut host = self.start();
        self.wait_ready(&mut host);
        (host, start.elapsed())
    }

    /// Waits until the running host is ready.
    pub fn wait_ready(&self, host: &mut Host) {
        let start = Instant::now();
        while let Err(why) = self.api.ready() {
            host.alive().unwrap_or_else(|ended| panic!("{ended}"));
            assert!(
                start.elapsed() < READY,
                "{} is not ready within {READY:?}: {why}",
                self.id
            );
            std::thread::sleep(Duration::from_millis(3));
        }
    }

    /// The same host, asked with a token.
    pub fn with_token(&self, token: &str) -> Api {
        self.api.with_token(token)
    }

    /// Its config file.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// The port of its API.
    pub fn port(&self) -> u16 {
        self.port
    }
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}
