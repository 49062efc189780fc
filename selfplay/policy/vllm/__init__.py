"""vLLM servers: started, asked, updated; vLLM itself is never imported."""
