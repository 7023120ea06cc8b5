// The browser page in Chromium. It needs node 20, Chromium, and in some directory DIR
//
//     npm install playwright-core@1.65.1 axe-core@4.14.1 ws@8.23.0
//
// Then: CHATLOOP_PAGE_MODULES=DIR node --test tests/interop/page.test.mjs
//
// tests/interop/web_page.py does that with a relay of its own.
//
// CHATLOOP_PAGE_URL is the page of a relay to test, such as http://127.0.0.1:1235/; without it the tests
// start a stand-in. The tests that pause, mute or stop the relay always use the stand-in, and say "mock:".
// CHATLOOP_PAGE_CHAT10 is HOST:PORT of that relay's chat10 listener. CHATLOOP_PAGE_PROGRAM is the program, for
// the test that kills and restarts a relay. CHATLOOP_CHROMIUM is the path of the browser, if it is not
// /usr/bin/chromium.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { connect } from 'node:net';
import { createInterface } from 'node:readline';
import { after, before, test as nodeTest } from 'node:test';

import { Mock } from './page_mock.mjs';

const CHROMIUM = process.env.CHATLOOP_CHROMIUM ?? '/usr/bin/chromium';
const SOURCE = readFileSync(new URL('../../src/server/web/page.html', import.meta.url), 'utf8');
const WAIT = 20_000;

function missing() {
  if (!existsSync(CHROMIUM)) return `there is no ${CHROMIUM}`;
  try {
    const require = createRequire(`${process.env.CHATLOOP_PAGE_MODULES}/`);
    ['playwright-core', 'axe-core', 'ws'].forEach((module) => require.resolve(module));
    return null;
  } catch {
    return 'CHATLOOP_PAGE_MODULES names no directory with playwright-core, axe-core and ws';
  }
}

const reason = missing();
if (reason) console.log(`skipped: the tests of the page, since ${reason}`);
const test = (name, body) => nodeTest(name, { skip: reason ?? false, timeout: 120_000 }, body);

let browser, WebSocket, AXE, shared, url;

before(async () => {
  if (reason) return;
  const require = createRequire(`${process.env.CHATLOOP_PAGE_MODULES}/`);
  ({ WebSocket } = require('ws'));
  AXE = require('axe-core').source;
  browser = await require('playwright-core').chromium.launch({ executablePath: CHROMIUM, args: ['--no-sandbox'] });
  url = process.env.CHATLOOP_PAGE_URL;
  if (!url) {
    shared = await Mock.start();
    url = shared.url;
  }
});

after(async () => {
  await browser?.close();
  await shared?.kill();
});

/** Runs `body` with a stand-in of its own, which it may replace by another one on the same port. */
function mockTest(name, body, limits = {}) {
  test(`mock: ${name}`, async () => {
    const relay = { mock: await Mock.start(0, limits) };
    relay.restart = async () => {
      relay.mock = await Mock.start(relay.mock.port, limits);
    };
    try {
      await body(relay);
    } finally {
      await relay.mock.kill();
    }
  });
}

/** Opens the page for `body`. Fails if the page asked another host for anything, broke its policy or threw. */
async function withPage(address, body, options = {}) {
  const { clock, init, ...contextOptions } = options;
  const context = await browser.newContext({ timezoneId: 'UTC', locale: 'en-GB', ...contextOptions });
  context.setDefaultTimeout(WAIT);
  const page = await context.newPage();
  const foreign = [];
  const errors = [];
  page.on('request', (request) => {
    if (!request.url().startsWith(address) && !request.url().startsWith('data:')) foreign.push(request.url());
  });
  page.on('websocket', (socket) => {
    if (socket.url() !== address.replace('http', 'ws')) foreign.push(socket.url());
  });
  page.on('pageerror', (error) => errors.push(String(error)));
  page.on('console', (message) => {
    // Chromium reports each failed connection as an error of its own.
    if (!/WebSocket connection to/.test(message.text())) errors.push(message.text());
  });
  await page.addInitScript(() => {
    addEventListener('securitypolicyviolation', (event) => console.error(`policy: ${event.violatedDirective}`));
  });
  if (init) await page.addInitScript(init);
  if (clock) await page.clock.install({ time: new Date('2026-11-27T12:00:00Z') });
  try {
    await page.goto(address);
    await body(page, context);
    assert.deepEqual(foreign, [], 'requests to other hosts');
    assert.deepEqual(errors, [], 'errors in the page');
  } finally {
    await context.close();
  }
}

const field = (page) => page.locator('#field');
const row = (page, text) => page.locator('#log p', { hasText: text }).last();
const state = (page, text) => page.locator('#state', { hasText: text }).waitFor();
const atEnd = (page) => page.waitForFunction(() => {
  const view = document.getElementById('view');
  return view.scrollHeight - view.scrollTop - view.clientHeight < 2;
});

async function join(page, name) {
  await page.locator('#who').fill(name);
  await page.keyboard.press('Enter');
  await state(page, 'Connected');
}

async function say(page, text) {
  await field(page).fill(text);
  await page.keyboard.press('Enter');
}

const marked = (page, text, mark) => row(page, text).locator('small', { hasText: mark }).waitFor();

/** Presses the button even if it is hidden, because the page has connected already. */
const connectNow = (page) => page.locator('#now').evaluate((button) => button.click());

/** A member that is no browser. */
async function member(address, name) {
  const socket = new WebSocket(address.replace('http', 'ws'));
  const heard = [];
  let wake = () => {};
  socket.on('message', (data) => {
    heard.push(JSON.parse(data.toString()));
    wake();
  });
  await new Promise((resolve, reject) => {
    socket.on('open', resolve);
    socket.on('error', reject);
  });
  socket.send(name);
  const until = async (found) => {
    for (;;) {
      const frame = heard.find(found);
      if (frame) return frame;
      await new Promise((resolve) => { wake = resolve; });
    }
  };
  await until((frame) => frame.hello);
  return { socket, heard, until, close: () => socket.close() };
}

/** Something to say that no other test says, since all may share one room. */
const unique = (text) => `${text} ${Math.random().toString(36).slice(2)}`;

// ---- The file ----

nodeTest('page_is_one_small_file_that_a_policy_with_hashes_allows', () => {
  assert.ok(Buffer.byteLength(SOURCE) <= 16_000, `${Buffer.byteLength(SOURCE)} bytes`);
  assert.equal(SOURCE.match(/<script/g).length, 1);
  assert.equal(SOURCE.match(/<style/g).length, 1);
  assert.doesNotMatch(SOURCE, /<[^>]+\s(?:style|on\w+)=/, 'no inline style or handler');
  assert.doesNotMatch(SOURCE, /innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(/);
  assert.doesNotMatch(SOURCE.replace('http://www.w3.org/2000/svg', ''), /https?:\/\//, 'no address');
});

// ---- With any relay ----

test('name_is_asked_for_once', async () => {
  await withPage(url, async (page) => {
    assert.equal(await page.evaluate(() => document.activeElement.id), 'who');
    await join(page, 'alice');
    await page.reload();
    await state(page, 'Connected');
    assert.ok(await page.locator('#join').isHidden());
    assert.equal(await page.evaluate(() => document.activeElement.id), 'field');
    assert.equal(await page.locator('#me').textContent(), 'alice');
    // It can be changed, and is sent anew.
    await page.getByText('Help').click();
    await page.getByRole('button', { name: 'Change name' }).click();
    await join(page, 'alice2');
    const text = unique('under another name');
    const bob = await member(url, 'bob');
    await say(page, text);
    assert.equal((await bob.until((frame) => frame.message === text)).name, 'alice2');
    bob.close();
  });
});

test('members_hear_each_other_and_lines_are_acknowledged', async () => {
  await withPage(url, async (page) => {
    await join(page, 'alice');
    const bob = await member(url, 'bob');
    const [one, two] = [unique('one'), unique('two\nlines')];
    await say(page, one);
    await marked(page, one, '✓');
    await bob.until((frame) => frame.message === one);
    bob.socket.send(two);
    await row(page, two.split('\n')[1]).waitFor();
    // What is copied reads as in a terminal.
    const copied = await row(page, two.split('\n')[1]).evaluate((element) => {
      getSelection().selectAllChildren(element);
      return getSelection().toString();
    });
    assert.match(copied, /^\d\d:\d\d bob: two\nlines /);
    await bob.until((frame) => frame.ack);
    bob.close();
  });
});

const CHAT10 = process.env.CHATLOOP_PAGE_CHAT10;
nodeTest('page_and_chat10_member_hear_each_other', { skip: reason ?? (CHAT10 ? false : 'no CHATLOOP_PAGE_CHAT10'), timeout: 120_000 }, async () => {
  await withPage(url, async (page) => {
    await join(page, 'alice');
    const [host, port] = CHAT10.split(':');
    const frame = (text) => `${String(Buffer.byteLength(text)).padEnd(10)}${text}`;
    const socket = connect(Number(port), host);
    const [theirs, mine] = [unique('from ten bytes of header'), unique('from a browser: é')];
    socket.write(frame('bob') + frame(theirs));
    await row(page, theirs).waitFor();
    assert.match(await row(page, theirs).textContent(), /bob: /);
    await say(page, mine);
    let heard = Buffer.alloc(0);
    for await (const bytes of socket) {
      heard = Buffer.concat([heard, bytes]);
      if (heard.includes(mine)) break;
    }
    assert.ok(heard.includes(frame('alice') + frame(mine)));
  });
});

test('shift_enter_begins_a_line_and_enter_sends', async () => {
  await withPage(url, async (page) => {
    await join(page, 'alice');
    const bob = await member(url, 'bob');
    const [one, two] = [unique('first'), unique('second')];
    await field(page).pressSequentially(one);
    await page.keyboard.press('Shift+Enter');
    await page.keyboard.insertText(two);
    await page.keyboard.press('Enter');
    await bob.until((frame) => frame.message === `${one}\n${two}`);
    assert.equal(await field(page).inputValue(), '');
    bob.close();
  });
});

test('enter_that_ends_a_composition_sends_nothing', async () => {
  await withPage(url, async (page, context) => {
    await join(page, 'alice');
    const devtools = await context.newCDPSession(page);
    await devtools.send('Input.imeSetComposition', { text: 'にほn', selectionStart: 3, selectionEnd: 3 });
    const enter = (init) => page.evaluate((fields) => {
      const event = new KeyboardEvent('keydown', { key: 'Enter', bubbles: true, cancelable: true, ...fields });
      document.getElementById('field').dispatchEvent(event);
    }, init);
    // Chromium and Firefox: keydown, then compositionend. Safari: compositionend, then keydown.
    await enter({ isComposing: true, keyCode: 229 });
    await devtools.send('Input.insertText', { text: '日本' });
    await enter({ isComposing: false, keyCode: 229 });
    assert.equal(await field(page).inputValue(), '日本');
    assert.equal(await page.locator('#log small').count(), 0);
    const text = unique('');
    await page.keyboard.insertText(text);
    await page.keyboard.press('Enter');
    await marked(page, `日本${text}`, '✓');
    assert.equal(await page.locator('#log small').count(), 1);
  });
});

test('names_have_the_colours_of_the_terminal_client', async () => {
  // What `chatloop join` shows with 256 colours.
  const expected = { alice: 71, bob: 170, Zoë: 67, 李小龙: 203, ci: 131, mallory: 37 };
  const cube = [0, 95, 135, 175, 215, 255];
  await withPage(url, async (page) => {
    await join(page, 'alice');
    for (const [name, index] of Object.entries(expected)) {
      const text = unique('in colour');
      const other = await member(url, name);
      other.socket.send(text);
      await row(page, text).waitFor();
      const colour = await row(page, text).locator('b').evaluate((element) => getComputedStyle(element).color);
      const [r, g, b] = colour.match(/\d+/g).map(Number);
      const at = index - 16;
      const wanted = [Math.floor(at / 36), Math.floor(at / 6) % 6, at % 6].map((step) => cube[step]);
      // One of the twelve is lighter than in xterm, for its contrast.
      [r, g, b].forEach((value, part) => assert.ok(Math.abs(value - wanted[part]) <= 17, `${name}: ${colour}`));
      other.close();
    }
  }, { colorScheme: 'dark' });
});

test('text_of_strangers_is_shown_and_does_nothing', async () => {
  const cases = [
    ['<img src=//evil.example/x onerror=alert(1)>', '<img src=//evil.example/x onerror=alert(1)>'],
    ['\x1b[2J\r\0\t', '\\u{1b}[2J\\r\\0\\t'],
    ['\u202edrow\u2066\ufeff\u2028', '\\u{202e}drow\\u{2066}\\u{feff}\\u{2028}'],
    ['\u0308\u200d', '\\u{308}\\u{200d}'],
    ['Zoe\u0308 a\u200cb 👩‍👩‍👧 O\'Brien \\u{1b}', 'Zoe\u0308 a\u200cb 👩‍👩‍👧 O\'Brien \\u{1b}'],
    [Buffer.from([0xff, 0x6f, 0x0a, 0x1b, 0xc3, 0xa9, 0xed, 0xa0, 0x80]), '\\xffo\n\\u{1b}\\xc3\\xa9\\xed\\xa0\\x80'],
  ];
  await withPage(url, async (page) => {
    await join(page, 'alice');
    const forged = await member(url, 'alice\u202e\n<b>bob</b>');
    for (const [sent, shown] of cases) {
      const end = unique(' end');
      forged.socket.send(Buffer.concat([Buffer.from(sent), Buffer.from(end)]), { binary: Buffer.isBuffer(sent) });
      await row(page, end).waitFor();
      const text = await row(page, end).evaluate((element) => [...element.childNodes].slice(2).map((node) => node.textContent).join(''));
      assert.equal(text, shown + end);
    }
    assert.equal(await page.locator('#log p bdi').last().textContent(), 'alice\\u{202e}\\n<b>bob</b>');
    const tags = await page.evaluate(() => [...new Set([...document.querySelectorAll('#log *')].map((element) => element.localName))]);
    assert.deepEqual(tags.filter((tag) => !['p', 'time', 'b', 'bdi', 'span', 'small', 'button'].includes(tag)), []);
    forged.close();
  });
});

test('long_message_is_shown_in_parts', async () => {
  await withPage(url, async (page) => {
    await join(page, 'alice');
    const bob = await member(url, 'bob');
    const end = unique('end');
    bob.socket.send('\n'.repeat(400_000));
    bob.socket.send('a\x01'.repeat(150_000));
    bob.socket.send(end);
    await row(page, end).waitFor();
    await page.locator('#log button', { hasText: '399941 more characters' }).click();
    await page.locator('#log button', { hasText: '399882 more characters' }).waitFor();
    await page.locator('#log button', { hasText: '291808 more characters' }).waitFor();
    bob.close();
  });
});

test('five_thousand_messages_keep_two_thousand_rows_and_what_is_typed', async () => {
  await withPage(url, async (page) => {
    await join(page, 'alice');
    const bob = await member(url, 'bob');
    const tag = unique('m').replace(' ', '-');
    for (let index = 1; index <= 5000; index += 1) bob.socket.send(`${tag} ${index}`);
    await field(page).pressSequentially('typed in the meantime');
    await row(page, `${tag} 5000`).waitFor();
    const shown = await page.evaluate((wanted) => [...document.querySelectorAll('#log p')]
      .map((element) => element.textContent.split(`${wanted} `)[1]).filter(Boolean).map(Number), tag);
    assert.deepEqual(shown, Array.from({ length: shown.length }, (_, index) => 5001 - shown.length + index));
    assert.ok(await page.locator('#log p').count() <= 2000);
    assert.ok(shown.length > 1900);
    assert.equal(await field(page).inputValue(), 'typed in the meantime');
    await atEnd(page);
    bob.close();
  });
});

test('reader_of_older_messages_stays_there_and_sees_how_many_are_new', async () => {
  await withPage(url, async (page) => {
    await join(page, 'alice');
    const bob = await member(url, 'bob');
    const tag = unique('line');
    for (let index = 0; index < 60; index += 1) bob.socket.send(`${tag} ${index}.`);
    await row(page, `${tag} 59.`).waitFor();
    await atEnd(page);
    await page.keyboard.press('PageUp');
    await page.waitForFunction(() => {
      const view = document.getElementById('view');
      return view.scrollHeight - view.scrollTop - view.clientHeight > 100;
    });
    const top = () => page.evaluate(() => document.getElementById('view').scrollTop);
    const before = await top();
    for (let index = 0; index < 3; index += 1) bob.socket.send(`${tag} more ${index}`);
    await page.getByRole('button', { name: '3 new' }).waitFor();
    assert.equal(await top(), before);
    await page.getByRole('button', { name: '3 new' }).click();
    await atEnd(page);
    assert.ok(await page.locator('#end').isHidden());
    assert.equal(await page.evaluate(() => document.activeElement.id), 'field');
    await page.keyboard.press('PageUp');
    bob.socket.send(`${tag} last`);
    await page.getByRole('button', { name: '1 new' }).waitFor();
    await page.keyboard.press('Escape');
    await atEnd(page);
    // A line away from the end is the end again, and any way up leaves it.
    const scrollTo = (left) => page.evaluate((value) => new Promise((done) => {
      const view = document.getElementById('view');
      view.addEventListener('scroll', done, { once: true });
      view.scrollTop = view.scrollHeight - view.clientHeight - value;
    }), left);
    await scrollTo(200);
    await scrollTo(20);
    bob.socket.send(`${tag} followed`);
    await row(page, `${tag} followed`).waitFor();
    await atEnd(page);
    await scrollTo(10);
    bob.socket.send(`${tag} not followed`);
    await page.getByRole('button', { name: '1 new' }).waitFor();
    await page.keyboard.press('Escape');
    await atEnd(page);
    // Nor does another size of the window move the end out of sight.
    await page.setViewportSize({ width: 500, height: 400 });
    await atEnd(page);
    assert.ok(await page.evaluate(() => document.documentElement.scrollHeight <= innerHeight), 'only the messages scroll');
    bob.close();
  });
});

test('everything_can_be_done_from_the_keyboard', async () => {
  await withPage(url, async (page) => {
    const focused = () => page.evaluate(() => document.activeElement.id || document.activeElement.localName);
    await page.keyboard.type('alice');
    await page.keyboard.press('Enter');
    await state(page, 'Connected');
    const [one, two] = [unique('one'), unique('two')];
    for (const text of [one, two]) {
      await page.keyboard.type(text);
      await page.keyboard.press('Enter');
      await marked(page, text, '✓');
    }
    for (const [key, text] of [['ArrowUp', two], ['ArrowUp', one], ['ArrowUp', one], ['ArrowDown', two], ['ArrowDown', '']]) {
      await page.keyboard.press(key);
      assert.equal(await field(page).inputValue(), text);
    }
    const order = [];
    while (order.at(-1) !== 'field') {
      await page.keyboard.press('Tab');
      order.push(await focused());
    }
    // Between the last and the first there is the browser itself.
    assert.deepEqual(order.filter((id) => id !== 'body'), ['go', 'summary', 'view', 'field']);
    await page.locator('summary').focus();
    await page.keyboard.press('Enter');
    await page.keyboard.press('Tab');
    assert.equal(await focused(), 'aloud');
    await page.keyboard.press('Tab');
    assert.equal(await focused(), 'rename');
    await page.keyboard.press('/');
    assert.equal(await focused(), 'field');
    await page.keyboard.type('/');
    assert.equal(await field(page).inputValue(), '/');
  });
});

/** A relay of its own, with a page on this port. 0 is any free port. */
async function startRelay(port = 0) {
  const listen = ['--listen', `ws://127.0.0.1:${port}`];
  const relay = spawn(process.env.CHATLOOP_PAGE_PROGRAM, ['serve', ...listen], { stdio: ['ignore', 'ignore', 'pipe'] });
  for await (const line of createInterface(relay.stderr)) {
    const found = line.match(/ws:\/\/127\.0\.0\.1:(\d+)/);
    if (found) {
      relay.port = Number(found[1]);
      relay.stderr.resume();
      return relay;
    }
  }
  throw new Error('the relay ended');
}

nodeTest('killed_relay_loses_nothing_typed_and_delivers_nothing_twice', {
  skip: reason ?? !process.env.CHATLOOP_PAGE_PROGRAM,
  timeout: 120_000,
}, async () => {
  let relay = await startRelay();
  const { port } = relay;
  try {
    await withPage(`http://127.0.0.1:${port}/`, async (page) => {
      await join(page, 'alice');
      await say(page, 'arrived');
      await marked(page, 'arrived', '✓');
      relay.kill('SIGSTOP');
      await say(page, 'in flight');
      await marked(page, 'in flight', 'sending');
      relay.kill('SIGKILL');
      await marked(page, 'in flight', 'may not have arrived');
      await state(page, 'No connection');
      await say(page, 'typed offline');
      await field(page).fill('a draft');
      relay = await startRelay(port);
      await connectNow(page);
      await marked(page, 'typed offline', '✓');
      assert.equal(await field(page).inputValue(), 'a draft');
      // The history has what the page has sent since.
      const bob = await member(`http://127.0.0.1:${port}/`, 'bob');
      await say(page, 'after it');
      await bob.until((frame) => frame.message === 'after it');
      const heard = bob.heard.filter((frame) => frame.message).map((frame) => `${frame.name}: ${frame.message}`);
      assert.deepEqual(heard, ['alice: typed offline', 'alice: after it']);
      bob.close();
    });
  } finally {
    relay.kill('SIGKILL');
  }
});

test('axe_finds_no_violation', async () => {
  for (const [colorScheme, width] of [['light', 360], ['dark', 360], ['light', 1440], ['dark', 1440]]) {
    const viewport = { width, height: 800 };
    await withPage(url, async (page, context) => {
      // Through the debugger, which the page's policy does not bind.
      const devtools = await context.newCDPSession(page);
      const evaluate = async (expression) => {
        const { result, exceptionDetails } = await devtools.send('Runtime.evaluate', { expression, awaitPromise: true, returnByValue: true });
        assert.equal(exceptionDetails, undefined);
        return result.value;
      };
      const check = async (when) => {
        await evaluate(AXE);
        const found = await evaluate('axe.run({ resultTypes: ["violations"] }).then(({ violations }) => '
          + 'violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html + node.failureSummary).join()}`))');
        assert.deepEqual(found, [], `${when}, ${colorScheme}, ${width} px`);
      };
      await check('asking for the name');
      await join(page, 'alice');
      // One name for each colour.
      const names = ['bob', 'Zoë', '李小龙', 'ci', 'mallory', 'carol', 'adam', 'beth', 'dora', 'gina', 'hugo', 'nora'];
      const others = await Promise.all(names.map((name) => member(url, name)));
      const text = unique('text');
      others.forEach((other) => other.socket.send(`${text}\x1b`));
      others[0].socket.send('/me waves');
      others[0].socket.send(`${text}.`);
      await row(page, `${text}.`).waitFor();
      await say(page, text);
      await page.locator('#log small', { hasText: '✓' }).waitFor();
      await check('in the room');
      await page.locator('summary').click();
      await check('with the help');
      others.forEach((other) => other.close());
    }, { colorScheme, viewport });
  }
});

// ---- With the stand-in ----

mockTest('history_is_shown_as_past_and_not_announced', async ({ mock }) => {
  mock.publish({ name: 'bob', message: 'before' });
  await withPage(mock.url, async (page) => {
    await join(page, 'alice');
    assert.match(await row(page, 'before').getAttribute('class'), /past/);
    mock.say('bob', 'after');
    await page.locator('#live', { hasText: 'bob: after' }).waitFor({ state: 'attached' });
    assert.doesNotMatch(await row(page, 'after').getAttribute('class') ?? '', /past/);
    assert.doesNotMatch(await page.locator('#live').textContent(), /before/);
  });
});

mockTest('screen_readers_get_new_messages_at_most_once_a_second', async ({ mock }) => {
  await withPage(mock.url, async (page) => {
    await join(page, 'alice');
    await page.clock.runFor(5000);
    await page.evaluate(() => {
      window.updates = [];
      new MutationObserver(() => window.updates.push(document.getElementById('live').textContent))
        .observe(document.getElementById('live'), { childList: true });
    });
    for (let index = 0; index < 20; index += 1) mock.say('bob', `burst ${index}`);
    await row(page, 'burst 19').waitFor();
    assert.deepEqual(await page.evaluate(() => window.updates), ['bob: burst 0']);
    await page.clock.runFor(1000);
    assert.deepEqual(await page.evaluate(() => window.updates), ['bob: burst 0', '19 new messages']);
    assert.equal(await page.locator('#log').getAttribute('aria-live'), 'off');
    await page.clock.runFor(1000);
    await page.locator('summary').click();
    await page.locator('#aloud').uncheck();
    mock.say('bob', 'unheard');
    await row(page, 'unheard').waitFor();
    await page.clock.runFor(2000);
    assert.equal((await page.evaluate(() => window.updates)).length, 2);
  }, { clock: true });
});

mockTest('restart_of_the_relay_loses_nothing_typed_and_sends_nothing_twice', async (relay) => {
  await withPage(relay.mock.url, async (page) => {
    await join(page, 'alice');
    await say(page, 'arrived');
    await marked(page, 'arrived', '✓');
    relay.mock.mute = true;
    await say(page, 'in flight');
    await marked(page, 'in flight', 'sending');
    await relay.mock.kill();
    await marked(page, 'in flight', 'may not have arrived');
    await state(page, 'No connection');
    await say(page, 'typed offline');
    await say(page, 'and this');
    await marked(page, 'and this', 'not sent yet');
    await field(page).fill('a draft');
    await relay.restart();
    await connectNow(page);
    await marked(page, 'and this', '✓');
    await marked(page, 'typed offline', '✓');
    await marked(page, 'in flight', 'may not have arrived');
    assert.equal(await field(page).inputValue(), 'a draft');
    assert.deepEqual(relay.mock.received, ['alice: typed offline', 'alice: and this']);
    await page.getByText('Messages sent meanwhile may be missing.').waitFor();
  });
});

mockTest('history_after_a_reconnect_repeats_nothing_and_settles_what_arrived', async ({ mock }) => {
  await withPage(mock.url, async (page) => {
    await join(page, 'alice');
    mock.say('bob', 'first');
    await row(page, 'first').waitFor();
    await say(page, 'acknowledged');
    await marked(page, 'acknowledged', '✓');
    mock.lose = true;
    await say(page, 'arrived after all');
    await mock.until(() => mock.received.length === 2);
    mock.mute = true;
    await say(page, 'never arrived');
    await marked(page, 'never arrived', 'sending');
    await page.waitForFunction(() => document.querySelectorAll('#log .wait').length === 2);
    await mock.until(() => mock.received.length === 3);
    mock.close(1013, 'fell behind');
    await page.getByText('Connection lost: fell behind.').waitFor();
    mock.say('bob', 'in the meantime');
    mock.mute = false;
    await page.getByText('Connected again.').waitFor();
    await marked(page, 'arrived after all', '✓');
    await marked(page, 'never arrived', 'may not have arrived');
    for (const text of ['first', 'acknowledged', 'arrived after all', 'never arrived', 'in the meantime']) {
      assert.equal(await page.locator('#log p', { hasText: text }).count(), 1, text);
    }
    assert.equal(await page.getByText('may be missing').count(), 0);
  });
});

mockTest('own_lines_stand_where_the_room_has_them', async ({ mock }) => {
  await withPage(mock.url, async (page) => {
    await join(page, 'alice');
    mock.mute = true;
    await say(page, 'on its way');
    await marked(page, 'on its way', 'sending');
    mock.say('bob', 'published before');
    await row(page, 'published before').waitFor();
    mock.send('{"ack":1}');
    await marked(page, 'on its way', '✓');
    mock.say('bob', 'published after');
    await row(page, 'published after').waitFor();
    const order = (await page.locator('#log p:not(.note)').allTextContents()).map((text) => text.match(/published before|on its way|published after/)[0]);
    assert.deepEqual(order, ['published before', 'on its way', 'published after']);
  });
});

mockTest('waits_between_connections_double_up_to_half_a_minute', async ({ mock }) => {
  await withPage(mock.url, async (page) => {
    await join(page, 'alice');
    await mock.kill();
    const waits = [];
    for (let attempt = 1; attempt <= 8; attempt += 1) {
      await page.waitForFunction((count) => window.failed >= count, attempt);
      const text = await page.locator('#state').textContent();
      waits.push(Number(text.match(/next try in (\d+) s/)[1]));
      await page.clock.runFor(waits.at(-1) * 1000);
    }
    assert.deepEqual(waits, [1, 1, 2, 4, 8, 16, 30, 30]);
    // At once when the network is back, or the tab in front.
    for (const event of ['online', 'visibilitychange']) {
      const count = await page.evaluate(() => window.failed);
      await page.evaluate((name) => (name === 'online' ? window : document).dispatchEvent(new Event(name)), event);
      await page.waitForFunction((before) => window.failed > before, count);
    }
  }, {
    clock: true,
    init: () => {
      Math.random = () => 1 - Number.EPSILON;
      window.failed = 0;
      const Native = window.WebSocket;
      window.WebSocket = class extends Native {
        // Counts once the page has handled the event.
        set onclose(handler) {
          super.onclose = (event) => {
            handler(event);
            window.failed += 1;
          };
        }
      };
    },
  });
});

mockTest('pause_is_shown_with_its_reason', async ({ mock }) => {
  await withPage(mock.url, async (page) => {
    await join(page, 'alice');
    mock.mute = true;
    await say(page, 'held');
    await marked(page, 'held', 'sending');
    mock.send('{"paused":true}');
    await state(page, 'Paused: senders wait for a slow reader');
    await marked(page, 'held', 'waiting');
    mock.send('{"paused":false}');
    await state(page, 'Connected');
    await marked(page, 'held', 'sending');
    mock.send('{"ack":1}');
    await marked(page, 'held', '✓');
  });
});

mockTest('connection_that_answers_nothing_is_given_up', async ({ mock }) => {
  await withPage(mock.url, async (page) => {
    await join(page, 'alice');
    mock.mute = true;
    await say(page, 'unanswered');
    await marked(page, 'unanswered', 'sending');
    mock.send('{"paused":true}');
    await state(page, 'Paused');
    await page.clock.runFor(600_000);
    await marked(page, 'unanswered', 'waiting');
    mock.send('{"paused":false}');
    await state(page, 'Connected');
    await page.clock.runFor(46_000);
    await marked(page, 'unanswered', 'may not have arrived');
    await page.getByText('Connection lost: no answer.').waitFor();
  }, { clock: true });
});

mockTest('refused_name_is_asked_for_again_with_the_reason', async ({ mock }) => {
  mock.refuse = [1008, 'the name is over --max-name 256'];
  await withPage(mock.url, async (page) => {
    await page.locator('#who').fill('alice');
    await page.keyboard.press('Enter');
    await page.locator('#why', { hasText: 'the name is over --max-name 256' }).waitFor();
    assert.equal(await page.locator('#who').inputValue(), 'alice');
    mock.refuse = null;
    await page.keyboard.press('Enter');
    await state(page, 'Connected');
  });
});

mockTest('refusal_after_the_first_time_is_shown_and_tried_again', async ({ mock }) => {
  await withPage(mock.url, async (page) => {
    await join(page, 'alice');
    mock.refuse = [1008, 'all places are taken'];
    mock.close(1001, 'the relay stops');
    await state(page, 'all places are taken; next try in');
    mock.refuse = null;
    await connectNow(page);
    await state(page, 'Connected');
  });
});

mockTest('bytes_are_counted_against_the_limit_of_the_relay', async ({ mock }) => {
  await withPage(mock.url, async (page) => {
    await join(page, 'alice');
    await field(page).fill('é'.repeat(32));
    assert.equal(await page.locator('#count').textContent(), '64 of 64 bytes');
    await field(page).fill(`${'é'.repeat(32)}x👋`);
    assert.equal(await page.locator('#count').textContent(), '5 bytes too long');
    assert.equal(await field(page).getAttribute('aria-invalid'), 'true');
    await page.keyboard.press('Enter');
    assert.ok(await page.locator('#go').isDisabled());
    assert.equal(await page.locator('#log small').count(), 0);
    await page.keyboard.press('Backspace');
    await page.keyboard.press('Backspace');
    await page.keyboard.press('Enter');
    await page.locator('#log small', { hasText: '✓' }).waitFor();
    assert.deepEqual(mock.received, [`alice: ${'é'.repeat(32)}`]);
  });
}, { maxMessage: 64 });

mockTest('hidden_tab_counts_in_its_title', async ({ mock }) => {
  await withPage(mock.url, async (page) => {
    await join(page, 'alice');
    const hide = (hidden) => page.evaluate((value) => {
      Object.defineProperty(document, 'hidden', { value, configurable: true });
      document.dispatchEvent(new Event('visibilitychange'));
    }, hidden);
    await hide(true);
    // Six minutes, in which a browser slows the timers of a hidden tab down.
    await page.clock.runFor(360_000);
    for (const text of ['one', 'two']) mock.say('bob', text);
    await page.waitForFunction(() => document.title === '(2) chatloop');
    mock.close(1001, 'the relay stops');
    await page.getByText('Connection lost: the relay stops.').waitFor();
    await hide(false);
    await state(page, 'Connected');
    assert.equal(await page.title(), 'chatloop');
  }, { clock: true });
});

mockTest('many_lines_typed_offline_all_arrive_in_order', async (relay) => {
  await withPage(relay.mock.url, async (page) => {
    await join(page, 'alice');
    await relay.mock.kill();
    await state(page, 'No connection');
    for (let index = 0; index < 100; index += 1) await say(page, `line ${index}`);
    await relay.restart();
    await connectNow(page);
    await marked(page, 'line 99', '✓');
    assert.deepEqual(relay.mock.received, Array.from({ length: 100 }, (_, index) => `alice: line ${index}`));
  });
});
