// The browser page in Chromium over https, with and without the authority of its certificate. It needs what
// page.test.mjs needs, and is run by tests/interop/web_tls.py.
//
// CHATLOOP_PAGE_URL is the page of a relay, such as https://localhost:1236/. CHATLOOP_PAGE_CHAT10 is HOST:PORT of that
// relay's chat10 listener. CHATLOOP_PAGE_TRUSTING is a home directory whose certificate database has the authority,
// CHATLOOP_PAGE_OTHER is one without it.

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { connect } from 'node:net';
import { test } from 'node:test';

const { CHATLOOP_PAGE_URL: url, CHATLOOP_PAGE_CHAT10: chat10 } = process.env;
const CHROMIUM = process.env.CHATLOOP_CHROMIUM ?? '/usr/bin/chromium';
const WAIT = 20_000;
const skip = existsSync(CHROMIUM) ? false : `there is no ${CHROMIUM}`;
if (skip) console.log(`skipped: the page over https, since ${skip}`);
const options = { skip, timeout: 120_000 };

/** Runs `body` with a page of a browser that has this home directory. */
async function withPage(home, body) {
  const { chromium } = createRequire(`${process.env.CHATLOOP_PAGE_MODULES}/`)('playwright-core');
  const env = { ...process.env, HOME: home, XDG_DATA_HOME: `${home}/.local/share` };
  const browser = await chromium.launch({ executablePath: CHROMIUM, args: ['--no-sandbox'], env });
  try {
    const page = await browser.newPage();
    page.setDefaultTimeout(WAIT);
    await body(page);
  } finally {
    await browser.close();
  }
}

/** A `chat10` member, and a function that waits until it has received these messages of others. */
function member(name) {
  const [host, port] = chat10.split(':');
  const frame = (text) => `${String(Buffer.byteLength(text)).padEnd(10)}${text}`;
  const socket = connect(Number(port), host);
  let received = '';
  socket.setEncoding('utf8').setTimeout(WAIT, () => socket.destroy(new Error('nothing was received')));
  socket.write(frame(name));
  const expect = (from, text) => new Promise((resolve, reject) => {
    const look = () => {
      if (received === frame(from) + frame(text)) resolve();
    };
    socket.on('error', reject).on('data', (more) => {
      received += more;
      look();
    });
    look();
  });
  return { send: (text) => socket.write(frame(text)), expect, end: () => socket.destroy() };
}

test('page whose authority is installed loads over https and chats over wss', options, async () => {
  const bob = member('bob');
  await withPage(process.env.CHATLOOP_PAGE_TRUSTING, async (page) => {
    const opened = page.waitForEvent('websocket');
    const response = await page.goto(url);
    const security = await response.securityDetails();
    assert.equal(security.protocol, 'TLS 1.3');
    await page.locator('#who').fill('alice');
    await page.keyboard.press('Enter');
    assert.equal((await opened).url(), url.replace('https', 'wss'));
    await page.locator('#state', { hasText: 'Connected' }).waitFor();
    await page.locator('#field').fill('hello from Chromium');
    await page.keyboard.press('Enter');
    await bob.expect('alice', 'hello from Chromium');
    bob.send('hello over TLS');
    await page.locator('#log p', { hasText: 'hello over TLS' }).waitFor();
  });
  bob.end();
});

test('page whose authority is not installed is refused', options, async () => {
  await withPage(process.env.CHATLOOP_PAGE_OTHER, async (page) => {
    const outcome = await page.evaluate((address) => new Promise((resolve) => {
      const socket = new WebSocket(address);
      socket.onopen = () => resolve('open');
      socket.onerror = () => resolve('failed');
    }), url.replace('https', 'wss'));
    assert.equal(outcome, 'failed');
    await assert.rejects(page.goto(url), /ERR_CERT_AUTHORITY_INVALID/);
  });
});
