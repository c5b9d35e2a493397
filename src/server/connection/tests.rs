use super::*;
use std::io::{Read, Write};
use std::net::TcpListener;

const ROOMY: Bounds = Bounds { max_body: 1 << 20, available_bytes: 1 << 20 };
const FULL: Bounds = Bounds { max_body: 1 << 20, available_bytes: 0 };

/// A connection, and its client.
fn pair() -> (Connection, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    client.set_nodelay(true).unwrap();
    (Connection::new(listener.accept().unwrap().0, Instant::now()), client)
}

/// Sends, and goes on until all of it was read.
fn send(connection: &mut Connection, client: &mut TcpStream, text: &str, bounds: Bounds) -> Step {
    client.write_all(text.as_bytes()).unwrap();
    let mut scratch = [0; 64 << 10];
    let mut unread = text.len();
    loop {
        while !connection.has_unread() {
            std::thread::yield_now()
        }
        let before = rustix::io::ioctl_fionread(connection.stream()).unwrap() as usize;
        let step = connection.advance(&mut scratch, true, bounds, &|_| Ok(()));
        unread = unread.saturating_sub(before);
        if unread == 0 || !matches!(step, Step::Wait(_)) {
            return step;
        }
    }
}

fn serve(connection: &mut Connection, bounds: Bounds) -> Step {
    let frame = Frame { id: "i".into(), is_head: false, is_http_10: false, close: false };
    connection.reply(&Reply::empty(204), &frame);
    connection.advance(&mut [0; 4096], false, bounds, &|_| Ok(()))
}

fn received(client: &mut TcpStream) -> String {
    client.set_nonblocking(true).unwrap();
    let mut bytes = Vec::new();
    let _ = client.read_to_end(&mut bytes);
    client.set_nonblocking(false).unwrap();
    String::from_utf8(bytes).unwrap()
}

fn post(length: usize, body: &str) -> String {
    format!("POST /job HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n{body}")
}

#[test]
fn a_request_in_pieces_is_served_once_and_the_connection_stays_open() {
    let (mut connection, mut client) = pair();
    let text = post(3, "abc");
    let (first, second) = text.split_at(20);
    assert!(matches!(send(&mut connection, &mut client, first, ROOMY), Step::Wait(Interest::Readable)));
    assert!(connection.is_unfinished() && connection.reserved_bytes() > 0);
    let Step::Serve(request) = send(&mut connection, &mut client, second, ROOMY) else { panic!("no request") };
    assert_eq!((request.method(), request.body()), ("POST", &b"abc"[..]));
    assert!(matches!(serve(&mut connection, ROOMY), Step::Wait(Interest::Readable)));
    assert!(connection.is_idle());
    assert_eq!((connection.reserved_bytes(), received(&mut client).matches("HTTP/1.1 ").count()), (0, 1));
}

#[test]
fn an_answered_request_is_not_rejected_for_lack_of_memory() {
    let (mut connection, mut client) = pair();
    let body = "x".repeat(40_000);
    send(&mut connection, &mut client, &post(body.len(), ""), ROOMY);
    assert!(matches!(send(&mut connection, &mut client, &body, ROOMY), Step::Serve(_)));
    assert!(matches!(serve(&mut connection, FULL), Step::Wait(Interest::Readable)));
    assert_eq!(received(&mut client).matches("HTTP/1.1 ").count(), 1);
}

#[test]
fn without_memory_a_large_request_is_rejected_and_a_small_one_is_not() {
    let (mut connection, mut client) = pair();
    assert!(matches!(send(&mut connection, &mut client, &post(100, "a"), FULL), Step::Wait(Interest::Readable)));
    assert_eq!(received(&mut client), "");
    let (mut connection, mut client) = pair();
    let text = post(100_000, &"x".repeat(50_000));
    send(&mut connection, &mut client, &text, FULL);
    assert!(received(&mut client).starts_with("HTTP/1.1 503 "));
}

#[test]
fn a_408_names_what_is_missing() {
    for (text, missing) in [("GET / HTTP/1.1\r\n", "the head"), (&post(10, "a"), "the body")] {
        let (mut connection, mut client) = pair();
        send(&mut connection, &mut client, text, ROOMY);
        assert!(connection.expire());
        connection.advance(&mut [0; 64], false, ROOMY, &|_| Ok(()));
        let reply = received(&mut client);
        assert!(reply.starts_with("HTTP/1.1 408 ") && reply.contains(missing), "{reply}");
    }
    assert!(!pair().0.expire(), "an idle one is closed without a word");
}

#[test]
fn an_empty_line_does_not_extend_the_idle_deadline() {
    let (mut connection, mut client) = pair();
    let (since, deadline) = (connection.waits_since(), connection.deadline());
    send(&mut connection, &mut client, "\r\n", ROOMY);
    assert!(connection.is_idle());
    assert_eq!((connection.waits_since(), connection.deadline()), (since, deadline));
    send(&mut connection, &mut client, "G", ROOMY);
    assert!(connection.deadline() < deadline, "a head has less time");
    let in_head = connection.deadline();
    send(&mut connection, &mut client, "E", ROOMY);
    assert_eq!(connection.deadline(), in_head, "and a drip does not stretch it");
}

#[test]
fn a_connection_with_unread_input_is_not_evicted() {
    let (connection, mut client) = pair();
    assert!(connection.is_evictable());
    client.write_all(b"G").unwrap();
    while !connection.has_unread() {
        std::thread::yield_now()
    }
    assert!(!connection.is_evictable());
}

#[test]
fn a_pipelining_client_yields_to_others() {
    let (mut connection, mut client) = pair();
    let text = "GET /health/live HTTP/1.1\r\nHost: h\r\n\r\n".repeat(MAX_IN_A_ROW as usize + 1);
    let mut step = send(&mut connection, &mut client, &text, ROOMY);
    let mut served = 0;
    while let Step::Serve(_) = step {
        served += 1;
        step = serve(&mut connection, ROOMY);
    }
    assert!(matches!(step, Step::Wait(Interest::Writable)), "{step:?}");
    assert_eq!(served, MAX_IN_A_ROW);
}
