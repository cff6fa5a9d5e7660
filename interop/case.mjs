// What every case in JavaScript stands on: the server that the runner started, and checks that print one line each.

const { env } = process;
export const { BASE, TENANT, ISSUER, RESOURCE } = env;
// Each of an audience of that name in lower case.
export const ALGORITHMS = env.ALGORITHMS.split(" ");

// Id and secret of one of the runner's keys: client, asker, brief, stranger, admin.
export const key = (name) => ({ id: env[`${name.toUpperCase()}_ID`], secret: env[`${name.toUpperCase()}_SECRET`] });

// Prints the line that the runner counts, and ends the case if it does not hold.
export const check = (what, holds, otherwise = "") => {
  if (!holds) {
    console.log(`not ok ${what}: ${otherwise}`);
    process.exit(1);
  }
  console.log(`ok ${what}`);
};

// Checks that this throws, and returns what was thrown.
export const refuses = async (what, act) => {
  let came;
  try {
    came = await act();
  } catch (refusal) {
    check(what, true);
    return refusal;
  }
  check(what, false, `it was taken: ${JSON.stringify(came)}`);
};

// The token with one bit of a part (0 to 2) flipped, where no padding is.
export const tampered = (token, part) => {
  const parts = token.split(".");
  const text = parts[part];
  const at = Math.floor(text.length / 2);
  parts[part] = text.slice(0, at) + (text[at] === "A" ? "B" : "A") + text.slice(at + 1);
  return parts.join(".");
};
