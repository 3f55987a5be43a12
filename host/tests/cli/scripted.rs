//! A host that answers from a list and remembers what it was asked: for answers a real one gives seldom.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use serde_json::Value;

/// A request as it came.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asked {
    /// `PUT /v1/plugins`.
    pub(crate) line: String,
    /// Lowercase names.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(found, _)| found == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// One entry of the list: which request, and the answer.
pub(crate) type Answer = (&'static str, u16, Value);

/// Runs until it is dropped. Of several answers to one request each serves once, the last one for good.
pub(crate) struct Scripted {
    pub(crate) url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Scripted {
    pub(crate) fn new(answers: &[Answer]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (seen, end) = (Arc::clone(&asked), Arc::clone(&stop));
        let mut answers = answers.to_vec();
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if end.load(Ordering::Acquire) {
                    return;
                }
                serve(stream.unwrap(), &mut answers, &seen);
            }
        });
        Self {
            url,
            asked,
            stop,
            thread: Some(thread),
        }
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        let address = self.url.trim_start_matches("http://");
        TcpStream::connect(address).ok();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

fn serve(mut stream: TcpStream, answers: &mut Vec<Answer>, asked: &Mutex<Vec<Asked>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let Some(request) = read(&mut reader, &mut stream) else {
        return;
    };
    let place = answers.iter().position(|(line, ..)| *line == request.line);
    let (status, body) = match place {
        Some(place) => {
            let more = answers[place + 1..]
                .iter()
                .any(|(line, ..)| *line == request.line);
            let (_, status, body) = answers[place].clone();
            if more {
                answers.remove(place);
            }
            (status, body.to_string())
        }
        None => (404, format!("nothing scripted for {}", request.line)),
    };
    asked.lock().unwrap().push(request);
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}\n"
    );
    // A client that has gone is not this server's business.
    stream.write_all(head.as_bytes()).ok();
}

fn read(reader: &mut impl BufRead, stream: &mut TcpStream) -> Option<Asked> {
    let mut line = String::new();
    if reader.read_line(&mut line).ok()? == 0 {
        return None;
    }
    let mut asked = Asked {
        line: line.rsplit_once(' ')?.0.to_owned(),
        ..Asked::default()
    };
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim_end().split_once(':') else {
            break;
        };
        asked
            .headers
            .push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    if asked.header("expect").is_some() {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").ok()?;
    }
    let length: usize = asked
        .header("content-length")
        .unwrap_or("0")
        .parse()
        .unwrap();
    asked.body = vec![0; length];
    reader.read_exact(&mut asked.body).ok()?;
    Some(asked)
}
