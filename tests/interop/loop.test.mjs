// The viewer of the loop in Chromium. It needs node 20, Chromium, and in some directory DIR
//
//     npm install playwright-core@1.65.1 axe-core@4.14.1
//
// Then: CHATLOOP_PAGE_MODULES=DIR node --test tests/interop/loop.test.mjs
//
// tests/interop/web_loop.py does that with a relay of its own, which has --watch. CHATLOOP_LOOP_URL is its address for
// browsers, CHATLOOP_LOOP_CHAT10 is HOST:PORT of its chat10 listener; without them the tests of the live view are
// skipped. CHATLOOP_CHROMIUM is the path of the browser, if it is not /usr/bin/chromium.

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { connect } from 'node:net';
import { after, before, test as nodeTest } from 'node:test';

const CHROMIUM = process.env.CHATLOOP_CHROMIUM ?? '/usr/bin/chromium';
const FILE = new URL('../../docs/loop.html', import.meta.url).href;
const HISTORIES = ['edge', 'fin', 'slow', 'slot', 'descriptors'];
const WAIT = 20_000;

function missing() {
  if (!existsSync(CHROMIUM)) return `there is no ${CHROMIUM}`;
  try {
    const require = createRequire(`${process.env.CHATLOOP_PAGE_MODULES}/`);
    ['playwright-core', 'axe-core'].forEach((module) => require.resolve(module));
    return null;
  } catch {
    return 'CHATLOOP_PAGE_MODULES names no directory with playwright-core and axe-core';
  }
}

const reason = missing();
if (reason) console.log(`skipped: the tests of the viewer, since ${reason}`);
const test = (name, body) => nodeTest(name, { skip: reason ?? false, timeout: 120_000 }, body);

let browser, AXE;

before(async () => {
  if (reason) return;
  const require = createRequire(`${process.env.CHATLOOP_PAGE_MODULES}/`);
  AXE = require('axe-core').source;
  browser = await require('playwright-core').chromium.launch({ executablePath: CHROMIUM, args: ['--no-sandbox'] });
});

after(async () => {
  await browser?.close();
});

/** Opens the viewer for `body`. Fails if it asked for anything else, broke its policy or threw. */
async function withViewer(address, body, options = {}) {
  const context = await browser.newContext(options);
  context.setDefaultTimeout(WAIT);
  const page = await context.newPage();
  const requests = [];
  const errors = [];
  const own = address.split('#')[0];
  page.on('request', (request) => {
    const url = request.url().split('#')[0];
    if (url !== own && url !== `${own}/trace` && !url.startsWith('data:')) requests.push(url);
  });
  page.on('pageerror', (error) => errors.push(String(error)));
  page.on('console', (message) => errors.push(message.text()));
  await page.addInitScript(() => {
    addEventListener('securitypolicyviolation', (event) => console.error(`policy: ${event.violatedDirective}`));
  });
  try {
    await page.goto(address);
    await body(page, context);
    assert.deepEqual(requests, [], 'other requests');
    assert.deepEqual(errors, [], 'errors in the page');
  } finally {
    await context.close();
  }
}

const count = (page) => page.locator('#count').textContent();
const step = (page, text) => page.locator('#step', { hasText: text }).waitFor();
const steps = async (page) => Number((await count(page)).match(/of (\d+)/)[1]);

/** Goes forward until a step says this. */
async function goTo(page, text) {
  for (let left = await steps(page); left > 0; left -= 1) {
    if (text.test(await page.locator('#step').textContent())) return;
    const before = await count(page);
    await page.keyboard.press('ArrowRight');
    await page.waitForFunction((was) => document.getElementById('count').textContent !== was, before);
  }
  assert.fail(`no step says ${text}`);
}

/** The violations that axe finds. Its script is run by the debugger, since the policy allows no other in the page. */
async function violations(page) {
  const devtools = await page.context().newCDPSession(page);
  const expression = `${AXE}; axe.run(document).then((found) => JSON.stringify(found.violations.map((one) => one.id)))`;
  const { result } = await devtools.send('Runtime.evaluate', { expression, awaitPromise: true, returnByValue: true });
  return JSON.parse(result.value);
}

test('each_history_opens_by_its_name_and_has_no_violation_narrow_and_light_or_wide_and_dark', async () => {
  for (const [width, colorScheme] of [[360, 'light'], [1440, 'dark']]) {
    for (const name of HISTORIES) {
      await withViewer(`${FILE}#${name}`, async (page) => {
        await page.locator('#turn li').first().waitFor();
        await page.getByText('How to read it').click();
        await page.keyboard.press('End');
        await page.waitForFunction(() => document.getElementById('slider').value === document.getElementById('slider').max);
        assert.deepEqual(await violations(page), [], `${name}, ${colorScheme}, ${width}`);
        const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
        assert.ok(overflow <= 0, `${name}, ${width}: ${overflow} px too wide`);
      }, { colorScheme, viewport: { width, height: 800 } });
    }
  }
});

test('each_step_is_a_sentence_of_its_own_and_the_keys_move_by_step_and_turn', async () => {
  for (const name of HISTORIES) {
    await withViewer(`${FILE}#${name}`, async (page) => {
      await page.locator('#turn li').first().waitFor();
      const all = await steps(page);
      for (let at = 1; at <= all; at += 1) {
        await page.waitForFunction((wanted) => document.getElementById('count').textContent.startsWith(`${wanted} of `), at);
        const text = await page.locator('#step').textContent();
        assert.match(text, /\.$/, text);
        assert.doesNotMatch(text, /undefined|null|NaN|does not know/, text);
        await page.keyboard.press('ArrowRight');
      }
      await page.keyboard.press('Home');
      await step(page, 'The trace begins');
      await page.keyboard.press('PageDown');
      await step(page, 'The turn is over');
      await page.keyboard.press('End');
      await page.keyboard.press('ArrowLeft');
      await page.waitForFunction((wanted) => document.getElementById('count').textContent.startsWith(`${wanted} of `), all - 1);
    });
  }
});

test('forgotten_edge_is_named_while_its_bytes_are_in_the_socket_and_nothing_is_remembered', async () => {
  await withViewer(`${FILE}#edge`, async (page) => {
    await page.locator('#turn li').first().waitFor();
    await goTo(page, /Forgotten: the last read from alice/);
    await page.locator('#kernel tr', { hasText: 'alice' }).filter({ hasText: '5,904 bytes unread' }).waitFor();
    await page.locator('#memory tr', { hasText: 'alice' }).filter({ hasText: 'nothing' }).waitFor();
  });
});

test('histories_show_what_they_are_named_for', async () => {
  const shown = {
    fin: [/read closed.*reads again/, /returns 0: that is the end/],
    slow: [/bob lags: 1,135 bytes/, /bob is a slow reader/, /alice sent something, and must wait/, /bob has caught up/],
    slot: [/registered.*as 0\.2/, /An event for 0\.0.*belongs to 0\.2 now.*ignores it/],
    descriptors: [/accept\(\) fails: Too many open files/, /closes its reserve/, /as 0\.3/, /no place/],
  };
  for (const [name, texts] of Object.entries(shown)) {
    await withViewer(`${FILE}#${name}`, async (page) => {
      await page.locator('#turn li').first().waitFor();
      for (const text of texts) await goTo(page, text);
    });
  }
});

test('play_runs_to_the_end_and_space_pauses_it', async () => {
  await withViewer(`${FILE}#fin`, async (page) => {
    await page.locator('#turn li').first().waitFor();
    await page.clock.install();
    await page.locator('#speed').selectOption('fast');
    await page.locator('#about h2').click();
    await page.keyboard.press('Space');
    await page.locator('#play', { hasText: 'Pause' }).waitFor();
    await page.clock.runFor(700);
    await page.keyboard.press('Space');
    await page.locator('#play', { hasText: 'Play' }).waitFor();
    assert.match(await count(page), /^3 of /);
    await page.keyboard.press('Space');
    await page.clock.runFor(60_000);
    const all = await steps(page);
    assert.match(await count(page), new RegExp(`^${all} of ${all} `));
    await page.locator('#play', { hasText: 'Play' }).waitFor();
  });
});

test('file_is_opened_by_the_chooser_and_by_a_drop_and_what_is_no_trace_is_said_to_be_none', async () => {
  await withViewer(FILE, async (page) => {
    await page.locator('#turn li').first().waitFor();
    const trace = await page.locator('#slot').evaluate((element) => element.textContent);
    const file = (name, text) => ({ name, mimeType: 'text/plain', buffer: Buffer.from(text) });
    await page.locator('input[type=file]').setInputFiles(file('mine.jsonl', trace));
    await page.locator('#about h2', { hasText: 'mine.jsonl' }).waitFor();
    await step(page, 'The trace begins');
    const hostile = trace.replaceAll('"bob"', JSON.stringify('<img src=x onerror=alert(1)>'));
    await page.evaluate((text) => {
      const data = new DataTransfer();
      data.items.add(new File([text], 'dropped.jsonl'));
      document.body.dispatchEvent(new DragEvent('drop', { dataTransfer: data, bubbles: true, cancelable: true }));
    }, hostile);
    await page.locator('#about h2', { hasText: 'dropped.jsonl' }).waitFor();
    await page.keyboard.press('End');
    await page.locator('#kernel th', { hasText: '<img src=x' }).waitFor();
    assert.equal(await page.locator('img').count(), 0);
    await page.locator('input[type=file]').setInputFiles(file('other.txt', 'something else\n'));
    await page.getByText('This is no trace').waitFor();
  });
});

// ---- Live ----

const URL_OF_RELAY = process.env.CHATLOOP_LOOP_URL;
const skip = reason ?? (URL_OF_RELAY ? false : 'no CHATLOOP_LOOP_URL');
const frame = (text) => `${String(Buffer.byteLength(text)).padEnd(10)}${text}`;

nodeTest('live_view_follows_the_relay_until_a_step_back', { skip, timeout: 120_000 }, async () => {
  const [host, port] = process.env.CHATLOOP_LOOP_CHAT10.split(':');
  await withViewer(`${URL_OF_RELAY}loop`, async (page) => {
    await page.locator('#about h2', { hasText: 'live' }).waitFor();
    await step(page, 'The trace begins');
    const alice = connect(Number(port), host);
    alice.write(frame('alice'));
    await page.locator('#kernel tr', { hasText: 'alice' }).waitFor();
    const bob = connect(Number(port), host);
    bob.write(frame('bob'));
    await page.locator('#kernel tr', { hasText: 'bob' }).waitFor();
    alice.write(frame('hello'));
    await page.locator('#turn li', { hasText: 'The turn buffer has 30 bytes from alice' }).waitFor();
    assert.deepEqual(await violations(page), []);
    await page.keyboard.press('ArrowLeft');
    // The view is painted after the key, and the end of the turn may come in between.
    await page.waitForFunction(() => {
      const [, at, all] = document.getElementById('count').textContent.match(/(\d+) of (\d+)/).map(Number);
      return at < all;
    });
    const at = (await count(page)).split(' of ')[0];
    const all = await steps(page);
    alice.write(frame('again'));
    await page.waitForFunction((was) => Number(document.getElementById('count').textContent.match(/of (\d+)/)[1]) > was, all);
    assert.equal((await count(page)).split(' of ')[0], at);
    await page.getByRole('button', { name: 'Follow live' }).click();
    await page.waitForFunction(() => document.getElementById('slider').value === document.getElementById('slider').max);
    alice.destroy();
    bob.destroy();
    // A history, and back.
    await page.getByRole('button', { name: 'A slot is used again' }).click();
    await page.locator('#about h2', { hasText: 'A slot' }).waitFor();
    await page.getByRole('button', { name: 'This relay, live' }).click();
    await step(page, 'The trace begins');
  });
});
