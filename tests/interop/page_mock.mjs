// A stand-in for the relay's `ws` listener, which the tests of the page can pause, mute and stop.
//
// By hand: CHATLOOP_PAGE_MODULES=DIR node tests/interop/page_mock.mjs [PORT]

import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';

const PAGE = new URL('../../src/server/web/page.html', import.meta.url);

/** The hash that the policy names for the page's one `tag`. */
export function hashOf(html, tag) {
  const inline = html.match(new RegExp(`<${tag}[^>]*>([^]*?)</${tag}>`))[1];
  return `'sha256-${createHash('sha256').update(inline).digest('base64')}'`;
}

/** Answers as the relay does: its members hear each other, and a test can interfere. */
export class Mock {
  static async start(port = 0, limits = {}) {
    const mock = new Mock();
    // Loaded here, so that a test can find out first whether it is installed.
    const require = createRequire(process.env.CHATLOOP_PAGE_MODULES ? `${process.env.CHATLOOP_PAGE_MODULES}/` : import.meta.url);
    const { WebSocketServer } = require('ws');
    mock.hello = { version: '0.1.0', maxName: 256, maxMessage: 1048576, ...limits };
    mock.history = [];
    mock.received = []; // each message that arrived, with its sender's name
    mock.members = new Set();
    mock.mute = false; // whether messages arrive and are neither relayed nor acknowledged
    mock.lose = false; // whether messages are relayed, and their acknowledgements lost
    mock.refuse = null; // a close code and a reason for each connection, in place of the hello
    mock.http = createServer((request, response) => mock.serve(request, response));
    mock.sockets = new Set();
    mock.http.on('connection', (socket) => {
      mock.sockets.add(socket);
      socket.on('close', () => mock.sockets.delete(socket));
    });
    const server = new WebSocketServer({ server: mock.http, maxPayload: 1 << 24 });
    server.on('connection', (socket) => mock.accept(socket));
    await new Promise((resolve) => mock.http.listen(port, '127.0.0.1', resolve));
    mock.port = mock.http.address().port;
    mock.url = `http://127.0.0.1:${mock.port}/`;
    return mock;
  }

  serve(request, response) {
    if (request.url !== '/') return response.writeHead(404).end();
    const html = readFileSync(PAGE, 'utf8');
    const origin = request.headers.host;
    response.writeHead(200, {
      'Content-Type': 'text/html; charset=utf-8',
      'Content-Security-Policy': `default-src 'none'; script-src ${hashOf(html, 'script')}; style-src ${hashOf(html, 'style')}; `
        + `connect-src 'self' ws://${origin} wss://${origin}; img-src data:; base-uri 'none'; form-action 'none'; `
        + "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
      'X-Content-Type-Options': 'nosniff',
      'Referrer-Policy': 'no-referrer',
      'Cache-Control': 'no-cache',
    });
    response.end(html);
  }

  accept(socket) {
    let name;
    socket.on('close', () => this.members.delete(socket));
    socket.on('message', (data) => {
      const text = data.toString();
      if (name === undefined) {
        if (this.refuse) return socket.close(...this.refuse);
        name = text;
        this.history.forEach((frame) => socket.send(frame));
        socket.send(JSON.stringify({ hello: this.hello }));
        this.members.add(socket);
        return;
      }
      this.received.push(`${name}: ${text}`);
      this.wake?.();
      if (this.mute) return;
      const hex = Buffer.from(text).equals(data) ? {} : { message_hex: data.toString('hex') };
      this.publish({ name, message: text, ...hex }, socket);
      if (!this.lose) socket.send('{"ack":1}');
    });
  }

  /** Waits for something that a message brings about. */
  async until(condition) {
    while (!condition()) await new Promise((resolve) => { this.wake = resolve; });
  }

  /** Relays a message to all members but `sender`. */
  publish(fields, sender) {
    const time = new Date().toISOString().replace(/\.\d+/, '');
    const frame = JSON.stringify({ time, ...fields });
    this.history = [...this.history, frame].slice(-50);
    this.send(frame, sender);
  }

  say(name, message) {
    this.publish({ name, message });
  }

  send(frame, but) {
    for (const member of this.members) if (member !== but) member.send(frame);
  }

  close(code, reason) {
    for (const member of this.members) member.close(code, reason);
  }

  /** Ends as a killed process does: without a close frame. */
  async kill() {
    const closed = new Promise((resolve) => this.http.close(resolve));
    this.sockets.forEach((socket) => socket.destroy());
    await closed;
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const mock = await Mock.start(Number(process.argv[2] ?? 1235));
  console.log(`open ${mock.url}`);
  let turn = 0;
  setInterval(() => mock.say(['bob', 'Zoë', '李小龙'][turn++ % 3], `line ${turn}`), 3000);
}
