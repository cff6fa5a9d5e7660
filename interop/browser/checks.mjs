// One line for each check, and the count at the end.

import { isDeepStrictEqual } from "node:util";

export class Checks {
  #passed = 0;
  #failed = 0;

  true(what, holds, seen) {
    if (holds) {
      this.#passed += 1;
      console.log(`ok      ${what}`);
    } else {
      this.fail(what, seen === undefined ? "" : `saw ${JSON.stringify(seen)}`);
    }
  }

  equal(what, seen, wanted) {
    this.true(`${what}`, isDeepStrictEqual(seen, wanted), { seen, wanted });
  }

  match(what, seen, pattern) {
    this.true(what, typeof seen === "string" && pattern.test(seen), { seen, wanted: String(pattern) });
  }

  fail(what, why) {
    this.#failed += 1;
    console.log(`FAILED  ${what}: ${why}`);
  }

  /** Whether there were checks and all of them passed. */
  summary() {
    console.log(`browser: ${this.#passed} passed, ${this.#failed} failed`);
    return this.#failed === 0 && this.#passed > 0;
  }
}
