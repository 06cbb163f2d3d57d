// Where callers are told apart: a token for a cookie, which scripts cannot read.
import { useState } from "preact/hooks";
import { signIn } from "../api";
import { look, needsLogin } from "../state";

export function Login() {
  const [token, setToken] = useState("");
  const [refusal, setRefusal] = useState("");
  const enter = async (event: SubmitEvent): Promise<void> => {
    event.preventDefault();
    try {
      await signIn(token.trim());
      needsLogin.value = false;
      void look();
    } catch (error) {
      setRefusal(error instanceof Error ? error.message : String(error));
    }
  };
  return (
    <main class="login">
      <form onSubmit={(event) => void enter(event)}>
        <h1>Sign in</h1>
        <p class="soft">This service tells its callers apart. Give the token you were made, or make one:</p>
        <pre tabIndex={0} aria-label="Command">fastrunner token NAME --roles read,submit,control</pre>
        <label class="field">
          <span>Token</span>
          <input type="password" autocomplete="current-password" required value={token} autoFocus onInput={(event) => setToken(event.currentTarget.value)} />
        </label>
        {refusal ? <p class="refusal" role="alert">{refusal}</p> : null}
        <footer><button type="submit" class="primary">Sign in</button></footer>
      </form>
    </main>
  );
}
